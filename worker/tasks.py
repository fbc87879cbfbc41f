"""The one task: answer an offer, then run what was claimed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from uuid import UUID, uuid4

import structlog
from celery import Celery

from shared.db.engine import make_engine
from shared.db.leases import Claim, claim
from shared.queue import RUN_ALLOCATION
from shared.settings import Settings
from worker.handling import handling
from worker.persist import until_answered

Run: TypeAlias = Callable[[Claim, Settings], object]


def add_tasks(app: Celery, settings: Settings, incarnation: UUID, run: Run) -> None:
    """Register the task with the application."""

    @app.task(name=RUN_ALLOCATION)  # type: ignore[untyped-decorator]  # celery has no types
    def run_allocation(allocation_id: str, dispatch_seq: int) -> None:
        with handling(settings.work_dir, allocation_id) as mine:
            claimed = take(settings, incarnation, allocation_id, dispatch_seq) if mine else None
            if claimed is None:
                log = structlog.stdlib.get_logger(__name__)
                log.info("nothing to claim", allocation=allocation_id, dispatch_seq=dispatch_seq)
                return
            run(claimed, settings)


def take(settings: Settings, incarnation: UUID, allocation_id: str, dispatch_seq: int) -> Claim | None:
    """Claim the allocation, through any outage of the database.

    A claim whose commit was not answered may have been made: who gave up then would lose the job a try.
    """
    engine = make_engine(settings.database_url.get_secret_value(), statement_timeout_s=5, pool_size=1)
    claim_id = uuid4()
    try:
        return until_answered(
            engine,
            lambda session: claim(
                session,
                allocation_id=allocation_id,
                dispatch_seq=dispatch_seq,
                node_id=settings.node_name,
                incarnation=incarnation,
                lease_s=settings.scaled(settings.lease_s),
                claim_id=claim_id,
            ),
            give_up=lambda: None,
        )
    finally:
        engine.dispose()
