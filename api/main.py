"""The API put together. Run it with `python -m api`."""

from __future__ import annotations

from asyncio import Semaphore
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic.script import ScriptDirectory
from fastapi import Depends, FastAPI

from api import docs, errors
from api.audit_trail import AuditTrail
from api.bodies import refuse_ignored_body
from api.deps import Parts, refuse_ignored_query
from api.errors import documented
from api.feed import EventFeed
from api.idempotency import refuse_useless_key
from api.key_uses import KeyUses
from api.metrics import ApiMetrics
from api.middleware import BodyCap, RequestContext
from api.routes import (
    audit,
    extractions,
    files,
    job_events,
    job_history,
    job_results,
    job_stops,
    jobs,
    keys,
    models,
    nodes,
    queue,
    system,
    team_quotas,
    teams,
    usage,
)
from api.services.plan_cache import PlanCache
from api.services.turns import Turns
from shared.artifacts import StoreOptions, open_store
from shared.db.engine import for_single_reads, make_engine
from shared.db.past_usage import PastUsage
from shared.settings import Settings

# Each may take a gigabyte of memory to be looked into.
_UPLOADS_AT_ONCE = 4
_MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application on the given settings. Connects to nothing before it is asked something."""
    parts = _make_parts(settings)
    app = FastAPI(
        title="Thaw",
        summary="Fine-tuning of PyTorch vision models: say what stays frozen, and have it proved.",
        lifespan=_lifespan,
        dependencies=[
            Depends(refuse_ignored_query),
            Depends(refuse_ignored_body),
            Depends(refuse_useless_key),
        ],
        responses=documented(400, 401, 422, 503),
        docs_url=None,  # FastAPI's own pages fetch their script from elsewhere
        redoc_url=None,
    )
    app.state.parts = parts
    # The first added is the innermost: a refusal for its length is named and counted too.
    app.add_middleware(BodyCap, settings=settings)
    app.add_middleware(AuditTrail, engine=parts.engine)
    app.add_middleware(RequestContext, metrics=parts.metrics)
    errors.install(app)
    docs.install(app)
    # The stream of events stands before the list at the same path.
    for router in (job_events.streams, job_events.router, job_results.router, job_history.router):
        app.include_router(router)
    for router in (jobs.router, extractions.router, job_stops.router):
        app.include_router(router)
    accounts = (teams.router, team_quotas.router, keys.router, audit.router, queue.router, usage.router)
    for router in (files.router, models.router, nodes.router, *accounts, system.router):
        app.include_router(router)
    return app


def _make_parts(settings: Settings) -> Parts:
    engine = make_engine(settings.database_url.get_secret_value(), statement_timeout_s=10, pool_size=20)
    past = PastUsage(settings.usage_half_life_s)
    head = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    assert head is not None, "there are migrations beside this package"
    return Parts(
        settings=settings,
        engine=engine,
        keys=for_single_reads(engine),
        key_uses=KeyUses(engine),
        store=open_store(settings.store_url, StoreOptions.from_settings(settings)),
        feed=EventFeed(engine),
        metrics=ApiMetrics(),
        plans=PlanCache(),
        past=past,
        turns=Turns(settings, past),
        uploads=Semaphore(_UPLOADS_AT_ONCE),
        head_revision=head,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    parts.feed.start()
    parts.key_uses.start()
    yield
    await parts.feed.stop()
    await parts.key_uses.stop()
    parts.engine.dispose()
