"""The service itself: its health and its metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.deps import PartsDep
from api.errors import documented
from api.metrics import CONTENT_TYPE
from shared.db.engine import transaction
from shared.db.forecast import slots_in_sum
from shared.db.jobs import count_by_state
from shared.db.revision import current_revision
from shared.domain.errors import Unavailable

router = APIRouter(tags=["system"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses=documented(503))
def readyz(parts: PartsDep) -> dict[str, str]:
    """The database has the tables that this version expects, and the store can be written."""
    with transaction(parts.engine) as session:
        revision = current_revision(session)
    if revision != parts.head_revision:
        raise Unavailable(
            f"the database is at migration {revision or 'none'}, this version needs {parts.head_revision}; "
            "run: alembic upgrade head",
            code="database_not_migrated",
        )
    parts.store.check()
    return {"status": "ready", "revision": revision}


@router.get("/metrics", response_class=Response)
def metrics(parts: PartsDep) -> Response:
    """Prometheus's text format. Holds no names of teams or jobs, and asks for no key."""
    with transaction(parts.engine) as session:
        jobs = count_by_state(session)
        slots = slots_in_sum(session, heard_within_s=parts.settings.heard_within_s)
    return Response(parts.metrics.text(jobs, slots), media_type=CONTENT_TYPE)
