"""The scheduler's life: pass after pass until it is told to stop, through outages of database and queue."""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Event

import structlog
from celery import Celery
from kombu.exceptions import OperationalError as QueueAway
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from scheduler.placing import place_jobs
from scheduler.reconciling import (
    admit_jobs,
    answer_silence,
    delete_what_is_due,
    end_deleted_teams,
    expire_the_lost,
    forget_old_entries,
    forget_old_keys,
    let_go_stopped_offers,
    vacate_drained_nodes,
)
from scheduler.steady import SteadyView
from shared.db import clock
from shared.db.past_usage import PastUsage
from shared.db.placement import Offer
from shared.db.steps import run_step
from shared.queue import is_reachable, publish, redis_client
from shared.settings import Settings

_LONGEST_BACK_OFF_S = 5.0


class Scheduler:
    """One copy of the scheduler; several may run on the same database."""

    def __init__(self, engine: Engine, app: Celery, settings: Settings) -> None:
        self._engine = engine
        self._app = app
        self._settings = settings
        self._log = structlog.stdlib.get_logger("scheduler")
        self._view = SteadyView(
            needed_s=settings.scaled(settings.lease_s), largest_gap_s=settings.scaled(settings.renew_s)
        )
        self._reconcile_at = 0.0
        self._past = PastUsage(settings.usage_half_life_s)
        self._queue = redis_client(settings.redis_url.get_secret_value())
        self._queue_is_away = False

    def run(self, stop: Event) -> None:
        """Work until `stop` is set."""
        failures = 0
        while not stop.is_set():
            try:
                self.step()
                failures = 0
            except DBAPIError as error:
                failures += 1
                self._view.lost()
                self._log.error("the database failed", error=str(error.orig), failures=failures)
            stop.wait(self._pause_s(failures))

    def step(self) -> None:
        """One pass, and a round of reconciling when it is time. Raises DBAPIError."""
        admit_jobs(self._engine)
        end_deleted_teams(self._engine)
        let_go_stopped_offers(self._engine)
        vacate_drained_nodes(self._engine)
        if self._may_offer():
            self._publish(run_step(self._engine, place_jobs, self._settings, self._past))
        now = run_step(self._engine, clock.now).timestamp()
        self._view.seen(now)
        if time.monotonic() >= self._reconcile_at:
            self._reconcile(now)
            self._reconcile_at = time.monotonic() + self._settings.scaled(self._settings.reconcile_s)

    def _reconcile(self, now: float) -> None:
        if self._may_offer():
            self._publish(answer_silence(self._engine, self._settings))
        forget_old_keys(self._engine, self._settings)
        forget_old_entries(self._engine, self._settings)
        delete_what_is_due(self._engine)
        if self._view.is_steady(now):
            expire_the_lost(self._engine, self._settings)

    def _may_offer(self) -> bool:
        """Whether an offer would be heard of: no jobs are placed, nor nodes suspected, behind a cut line."""
        if self._queue_is_away:
            self._queue_is_away = not is_reachable(self._queue)
        return not self._queue_is_away

    def _publish(self, offers: Iterable[Offer]) -> None:
        """What cannot be published is no loss: an offer without an answer is made anew."""
        for offer in offers:
            try:
                publish(
                    self._app,
                    node_id=offer.node_id,
                    allocation_id=offer.allocation_id,
                    dispatch_seq=offer.dispatch_seq,
                )
            except QueueAway as error:
                self._queue_is_away = True
                self._log.error("the queue is away", allocation=offer.allocation_id, error=str(error))
                return
            self._log.info("offered", allocation=offer.allocation_id, node=offer.node_id)

    def _pause_s(self, failures: int) -> float:
        pause_s = self._settings.scaled(self._settings.schedule_s)
        return min(pause_s * 2.0 ** min(failures, 10), _LONGEST_BACK_OFF_S) if failures else pause_s
