"""/v1/audit: who did what, when, from where, and how it ended."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from api.deps import KeeperDep, SessionDep
from api.errors import documented
from api.query import Limit, Moment
from api.schemas import ListOf, unix
from api.views import page_of
from shared.db.audit import Sought, list_audit
from shared.db.models import AuditEntry
from shared.db.teams_seen import team_asked_for

router = APIRouter(prefix="/v1/audit", tags=["teams and keys"])

_Text = Annotated[str | None, Query(min_length=1, max_length=500)]


class AuditView(BaseModel):
    """A write request that came with a known key, good or not."""

    id: str
    object: Literal["audit_entry"] = "audit_entry"
    at: int
    key: str = Field(description="the key's id")
    key_name: str
    role: str
    team: str = Field(description="the id of the key's team")
    team_name: str
    method: str
    route: str
    target: str | None = Field(description="what the path names, else what was made")
    client: str | None = Field(description="the address that the request came from")
    status: int
    request_id: str = Field(description="as in the header X-Request-Id and in the server's log")


def _sought(
    session: SessionDep,
    caller: KeeperDep,
    team: _Text = None,
    key: _Text = None,
    target: _Text = None,
    start: Moment = None,
    end: Moment = None,
) -> Sought:
    return Sought(team_asked_for(session, caller, team), key, target, start, end)


@router.get("", responses=documented(403, 404))
def list_all(
    session: SessionDep,
    sought: Annotated[Sought, Depends(_sought)],
    after: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="the last of the page before")] = None,
    limit: Limit = 100,
) -> ListOf[AuditView]:
    """Every write request, refused ones too, the newest first: an owner's team's, or all for an admin.

    `team` is an id or a name, `key` and `target` are ids; `end` is not included.
    """
    return page_of(list_audit(session, sought, after=after, limit=limit), _view)


def _view(entry: AuditEntry) -> AuditView:
    return AuditView(
        id=str(entry.id),
        at=unix(entry.at),
        key=entry.key_id,
        key_name=entry.key_name,
        role=entry.role,
        team=entry.team_id,
        team_name=entry.team_name,
        method=entry.method,
        route=entry.route,
        target=entry.target,
        client=entry.client,
        status=entry.status,
        request_id=entry.request_id,
    )
