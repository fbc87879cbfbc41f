"""What happened to a job of whatever kind: its events, paged, or as they happen."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope as AsgiScope

from api.deps import CallerDep, KindDep, PartsDep, ScopeDep
from api.errors import documented
from api.query import After, Limit
from api.routes.kinds import get_of_each_kind
from api.schemas import EventView, ListOf
from api.views import event_view, page_of
from shared.db.engine import transaction
from shared.db.followed import list_events
from shared.db.models import Job
from shared.db.scope import Scope
from shared.domain.errors import Invalid

_EVENT_ID = re.compile(r"(?:f[tx]event-[a-z0-9]+-)?(\d{1,9})\Z")


class _StreamRoute(APIRoute):
    """Answers those who accept server-sent events; all others fall through to the route of the list."""

    def matches(self, scope: AsgiScope) -> tuple[Match, AsgiScope]:
        if "text/event-stream" not in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)


streams = APIRouter(route_class=_StreamRoute, include_in_schema=False)
router = APIRouter(tags=["history"])


def _followed_job(job_id: str, caller: CallerDep, parts: PartsDep, kind: KindDep) -> str:
    """The job's id, once it is known to be the caller's; the stream itself holds no session."""
    with transaction(parts.engine) as session:
        return Scope(session, caller.team_id, kind).get(Job, job_id).id


def _last_seen(
    last_event_id: Annotated[str | None, Header(max_length=200)] = None, after: After = None
) -> int:
    """The event behind which to begin, decided before the answer has begun: it could not be refused later."""
    return _seq(last_event_id, "Last-Event-ID") or _seq(after) or 0


@get_of_each_kind(streams, "/events", response_class=EventSourceResponse)
async def follow_events(
    job_id: Annotated[str, Depends(_followed_job)],
    last_seen: Annotated[int, Depends(_last_seen)],
    caller: CallerDep,
    parts: PartsDep,
) -> AsyncIterator[ServerSentEvent]:
    """Every event as it happens, until the job is over or the caller's key is good no more."""
    async for event in parts.feed.follow(job_id, last_seen, caller.key_id):
        yield ServerSentEvent(id=str(event.seq), data=event_view(event))


@get_of_each_kind(
    router,
    "/events",
    responses={
        **documented(422, 404),
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    },
)
def events(
    job_id: str,
    scope: ScopeDep,
    after: After = None,
    limit: Limit = 20,
    order: Literal["asc", "desc"] = "desc",
) -> ListOf[EventView]:
    """The job's events, the newest first.

    With `Accept: text/event-stream` they are sent as they happen, oldest first, until the job is over;
    `Last-Event-ID` says after which `seq` to begin.
    """
    return page_of(list_events(scope, job_id, after=_seq(after), limit=limit, order=order), event_view)


def _seq(event: str | None, param: str = "after") -> int | None:
    """The number in an event's id."""
    if not event:
        return None
    match = _EVENT_ID.match(event)
    if match is None:
        raise Invalid(
            f"{event!r} is no event: give its number, or its id, 'ftevent-...' or 'fxevent-...'", param=param
        )
    return int(match[1])
