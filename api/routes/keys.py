"""/v1/keys: owners manage those of their team, admins all; everybody sees the own one."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from api.audit_trail import AuditedRoute
from api.deps import CallerDep, KeeperDep, SessionDep
from api.errors import documented
from api.query import After, Limit
from api.schemas import ListOf
from api.team_schemas import KeyView, MadeKey, NewKey
from api.team_views import key_fields, key_view
from api.views import page_of
from shared.db import own_keys
from shared.db.keys import Caller, add_key
from shared.db.models import ApiKey, Team
from shared.db.teams import check_team_takes, get_team, names_of
from shared.db.teams_seen import team_asked_for
from shared.domain.errors import Invalid, NotFound
from shared.domain.roles import check_keeps

router = APIRouter(prefix="/v1/keys", tags=["teams and keys"], route_class=AuditedRoute)


@router.post("", responses=documented(403, 409, 422))
def create(asked: NewKey, session: SessionDep, caller: KeeperDep, response: Response) -> MadeKey:
    """Make a key for a team. This answer is the only one that holds the key itself."""
    team = _team_named(session, caller, asked.team)
    check_keeps(caller.role, asked.role)
    check_team_takes(session, team)
    row, key = add_key(session, team.id, name=asked.name, role=asked.role, expires_in_s=asked.expires_in_s)
    check_team_takes(session, team)
    response.headers["Cache-Control"] = "no-store"
    return MadeKey(**key_fields(row, team.name), key=key)


@router.get("", responses=documented(404, 422))
def list_all(
    session: SessionDep,
    caller: CallerDep,
    team: Annotated[str | None, Query(max_length=200, description="id or name of a team")] = None,
    after: After = None,
    limit: Limit = 100,
    order: Literal["asc", "desc"] = "desc",
) -> ListOf[KeyView]:
    """The keys, the newest first, revoked ones too.

    All for an admin, those of the team for its owner, and the own one for everybody else.
    """
    team_id = team_asked_for(session, caller, team)
    page = own_keys.list_keys(session, caller, team_id=team_id, after=after, limit=limit, order=order)
    return page_of(page, partial(key_view, team_names=names_of(session, {key.team_id for key in page.rows})))


@router.get("/{key_id}", responses=documented(404))
def get_one(key_id: str, session: SessionDep, caller: CallerDep) -> KeyView:
    """One key, without its secret."""
    return _shown(session, own_keys.get_key(session, caller, key_id))


@router.post("/{key_id}/revoke", responses=documented(403, 404, 409))
def revoke(key_id: str, session: SessionDep, caller: KeeperDep) -> KeyView:
    """End a key at once, with the streams that were opened with it. Asking again changes nothing.

    The last valid key of role admin cannot be revoked.
    """
    return _shown(session, own_keys.revoke_key(session, caller, key_id))


def _team_named(session: Session, caller: Caller, named: str | None) -> Team:
    try:
        return get_team(session, caller, named or caller.team_id)
    except NotFound as error:
        raise Invalid(error.message, param="team", code="unknown_team") from error


def _shown(session: Session, key: ApiKey) -> KeyView:
    return key_view(key, names_of(session, {key.team_id}))
