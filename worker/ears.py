"""Whether this worker hears its queue, and what is done when it does not.

A consumer can fall silent with its connection open, as after a restart of Redis or on a line that swallows
what is sent. Kombu looks after the connection by itself; this looks at the database, where the offers stand.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import redis
import structlog
from celery import signals
from celery.apps.worker import Worker
from sqlalchemy import Engine

from shared.db.offers import offer_waits
from shared.db.steps import run_step
from shared.queue import is_reachable, n_messages
from shared.settings import Settings
from worker.handling import all_kept_out, n_handled
from worker.hearing import HearingRule, Remedy
from worker.processes import kill_all

_KILL_WAIT_S = 5.0
# Celery first takes leave of the old connection, which costs two of its timeouts where nothing comes back.
_RECONNECT_S = 10.0


class Ears:
    """Watches over the consumer of `worker`, from another thread."""

    def __init__(
        self, settings: Settings, engine: Engine, queue: redis.Redis, worker: Worker, n_processes: int
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._queue = queue
        self._worker = worker
        self._n_processes = n_processes
        self._rule = HearingRule(settings.scaled(settings.offer_s), _RECONNECT_S)
        self._log = structlog.stdlib.get_logger(__name__)
        signals.task_received.connect(self._on_task, weak=False)

    def hear(self) -> bool:
        """Whether the worker may be given offers, after what can be done for that. Raises DBAPIError.

        Does not return where the whole process must begin anew and nothing runs here.
        """
        if not is_reachable(self._queue):
            return False
        if n_handled(self._settings.work_dir) < self._n_processes:  # else messages wait rightly
            self._mend(self._look())
        return not self._rule.is_deaf

    def _look(self) -> Remedy:
        node, patience_s = self._settings.node_name, self._rule.patience_s
        return self._rule.decide(
            time.monotonic(),
            offers_wait=run_step(self._engine, offer_waits, node, for_s=patience_s),
            messages_lie=n_messages(self._queue, node) > 0,
        )

    def _mend(self, remedy: Remedy) -> None:
        if remedy is Remedy.RECONNECT:
            self._log.warning("offers_unheard", remedy="the connection to Redis is made anew")
            self._worker.consumer.hub.call_soon(_lose_the_connection)
        elif remedy is Remedy.BEGIN_ANEW:
            self._log.error("deaf", remedy="this process begins anew as soon as nothing runs here")
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Become a fresh process under the same id, unless an allocation is handled here.

        What runs renews its own lease and needs no message, so it is let finish: meanwhile the node gets no
        offers.
        """
        with all_kept_out(self._settings.work_dir) as idle:
            if idle:
                kill_all(os.getpid(), limit_s=_KILL_WAIT_S)
                os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this program

    def _on_task(self, **_: Any) -> None:
        self._rule.heard(time.monotonic())


def _lose_the_connection() -> None:
    """In the event loop: the consumer takes it for a lost connection, and leaves the pool as it is."""
    raise ConnectionResetError("offers wait in the database, and none is heard")
