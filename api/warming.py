"""What the first requests of a process would pay for, paid before it listens."""

from __future__ import annotations

import gc

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from api.deps import Parts
from api.services.plan_cache import PlanCache
from api.services.resolving import resolve_job
from shared.db.engine import transaction
from shared.db.keys import find_key
from shared.db.scope import Scope
from shared.domain.errors import ThawError
from shared.domain.job_kind import JobKind
from shared.domain.spec import PlanSpec

_NOBODY, _MODEL = "nobody", "resnet18"


def warm_up(parts: Parts) -> None:
    """Plan a job of nobody and make a forecast: SQL is compiled, imported late what is, the past summed up.

    What is in memory then stays for the life of the process: the garbage collector is told not to look at it
    again, which would hold up a request for a tenth of a second now and then. A database that is away is no
    reason not to start.
    """
    try:
        with Session(parts.keys) as session:
            find_key(session, _NOBODY)
        with transaction(parts.engine) as session:
            resolve_job(Scope(session, _NOBODY, JobKind.FINE_TUNING), PlanSpec(model=_MODEL), PlanCache())
            parts.past.read(session)
            parts.turns.now(session)
    except (DBAPIError, ThawError) as error:
        structlog.stdlib.get_logger(__name__).warning("not_warmed_up", error=str(error).partition("\n")[0])
    gc.collect()
    gc.freeze()
