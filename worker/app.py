"""The node's Celery application: its one queue, as many processes as the node has slots."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

from celery import Celery, signals
from celery.apps.worker import Worker

from shared.queue import hostname, make_app, node_queue
from shared.settings import Settings
from worker.tasks import Run, add_tasks


def make_worker_app(settings: Settings, incarnation: UUID, run: Run) -> Celery:
    """An application that consumes the node's own queue alone and hands each claim to `run`."""
    app = make_app(settings.redis_url.get_secret_value())
    app.conf.update(
        task_queues=[node_queue(settings.node_name)],
        task_create_missing_queues=False,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
    )
    add_tasks(app, settings, incarnation, run)
    return app


def make_worker(app: Celery, settings: Settings, n_slots: int) -> Worker:
    """The worker, to be started in the main thread. SIGTERM ends it once its tasks have ended."""
    signals.setup_logging.connect(_leave_logging_alone, weak=False)
    signals.worker_process_init.connect(_OnlyBelow(os.getpid()), weak=False)
    return app.Worker(
        hostname=hostname(settings.node_name),
        pool="prefork",
        concurrency=n_slots,
        optimization="fair",
        loglevel=settings.log_level.upper(),
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )


def _leave_logging_alone(**_: Any) -> None:
    """Celery sets logging up unless somebody answers this signal."""


class _OnlyBelow:
    """Ends a pool process whose parent died before the kernel was asked to tell of that (Celery asks it)."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def __call__(self, **_: Any) -> None:
        if os.getppid() != self._parent:
            os._exit(1)
