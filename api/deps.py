"""What routes ask for: this process's parts, the caller, and a session that sees the caller's team alone."""

from __future__ import annotations

from asyncio import Semaphore
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, get_origin

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from api.audit_trail import CALLER, SESSION
from api.feed import EventFeed
from api.key_uses import KeyUses
from api.metrics import ApiMetrics
from api.services.plan_cache import PlanCache
from api.services.turns import Turns
from shared.artifacts import ArtifactStore
from shared.db.engine import transaction
from shared.db.keys import Caller, find_key
from shared.db.past_usage import PastUsage
from shared.db.scope import Scope
from shared.domain.errors import Forbidden, Invalid, Unauthenticated
from shared.domain.job_kind import JobKind
from shared.domain.roles import KEEPERS, WRITERS
from shared.settings import Settings

# What neither waits nor computes is `async` here: FastAPI runs the rest in threads, and each change of thread
# is a tenth of a millisecond of every request.
_bearer = HTTPBearer(auto_error=False, description="An API key: thaw_...")


@dataclass(frozen=True)
class Parts:
    """What one process of the API holds, made once by `create_app`."""

    settings: Settings
    engine: Engine
    keys: Engine
    """To look up API keys, see `for_single_reads`."""
    key_uses: KeyUses
    store: ArtifactStore
    feed: EventFeed
    metrics: ApiMetrics
    plans: PlanCache
    past: PastUsage
    turns: Turns
    uploads: Semaphore
    """Lets in as many uploads as are checked and stored at once."""
    head_revision: str


async def parts(request: Request) -> Parts:
    """This process's parts."""
    held: Parts = request.app.state.parts
    return held


PartsDep = Annotated[Parts, Depends(parts)]


def caller(
    request: Request,
    parts: PartsDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """Whose key came with the request: looked up before the request's own transaction begins."""
    if credentials is None:
        raise Unauthenticated("send an API key in the header 'Authorization: Bearer thaw_...'")
    with Session(parts.keys) as session:
        found = find_key(session, credentials.credentials)
    if found is None:
        raise Unauthenticated("this API key is unknown")
    request.scope[CALLER] = found.caller
    if found.ended is not None:
        raise Unauthenticated(f"this API key {found.ended}; an owner of the team can make another")
    parts.key_uses.saw(found)
    return found.caller


CallerDep = Annotated[Caller, Depends(caller)]


async def writer(caller: CallerDep) -> Caller:
    """The caller, who must be allowed to change things."""
    if caller.role not in WRITERS:
        raise Forbidden(
            f"a key of role {caller.role!r} may look only; {', '.join(sorted(WRITERS))} may change"
        )
    return caller


WriterDep = Annotated[Caller, Depends(writer)]


async def keeper(caller: CallerDep) -> Caller:
    """The caller, who must be allowed to make and revoke keys, at least those of the own team."""
    if caller.role not in KEEPERS:
        raise Forbidden(
            f"a key of role {caller.role!r} may not manage keys; {' and '.join(sorted(KEEPERS))} may"
        )
    return caller


KeeperDep = Annotated[Caller, Depends(keeper)]


def operator(caller: CallerDep) -> Caller:
    """The caller, who must run this service: what is asked for reaches over all teams."""
    if caller.role != "admin":
        raise Forbidden(f"this is for keys of role 'admin'; this key has the role {caller.role!r}")
    return caller


OperatorDep = Annotated[Caller, Depends(operator)]


def session(request: Request, parts: PartsDep) -> Iterator[Session]:
    """One request, one transaction."""
    with transaction(parts.engine) as open_session:
        request.scope[SESSION] = open_session
        yield open_session


# "function": committed before the answer is sent, so that a failed commit is not a 201.
SessionDep = Annotated[Session, Depends(session, scope="function")]


def job_path(kind: JobKind) -> str:
    """Where the jobs of a kind are."""
    return f"/v1/{kind}/jobs"


async def kind(request: Request) -> JobKind:
    """The kind of jobs that a route is about: its path says so. All other routes know fine-tuning jobs."""
    about_extraction = request.scope["route"].path.startswith(job_path(JobKind.FEATURE_EXTRACTION))
    return JobKind.FEATURE_EXTRACTION if about_extraction else JobKind.FINE_TUNING


KindDep = Annotated[JobKind, Depends(kind)]


async def scope(session: SessionDep, caller: CallerDep, kind: KindDep) -> Scope:
    """The request's session, seeing the caller's team alone, and of its jobs those of the route's kind."""
    return Scope(session, caller.team_id, kind)


ScopeDep = Annotated[Scope, Depends(scope, scope="function")]


def _query_names(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    """The query parameters of a route or a dependency, with what it depends on; True: a list of values."""
    for field in dependant.query_params:
        yield field.alias, get_origin(field.field_info.annotation) is list
    for deeper in dependant.dependencies:
        yield from _query_names(deeper)


async def refuse_ignored_query(request: Request) -> None:
    """A query parameter that no one reads is an error, not silence; so is one that is given twice."""
    route = request.scope["route"]
    known = dict(_query_names(route.dependant))
    deep = {parameter["name"] for parameter in (route.openapi_extra or {}).get("parameters", ())}
    for name, n_given in Counter(name for name, _ in request.query_params.multi_items()).items():
        start, bracket, _ = name.partition("[")
        if name not in known and not (start in deep and bracket and name.endswith("]")):
            hint = f"known here: {', '.join(sorted(known))}" if known else "there are none here"
            raise Invalid(
                f"{name!r} is no parameter of this route; {hint}", param=name, code="unknown_parameter"
            )
        if n_given > 1 and not known.get(name):
            raise Invalid(
                f"{name!r} is given {n_given} times, and only one of them would count; give it once",
                param=name,
                code="repeated_parameter",
            )
