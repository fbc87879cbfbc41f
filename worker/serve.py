"""A worker from start to end: find the devices, wait for the servers, register, then answer offers."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis
import structlog
from celery import signals
from sqlalchemy.exc import DBAPIError

from shared.db.engine import make_engine
from shared.queue import check_redis, redis_client
from shared.settings import Settings
from worker.app import make_worker, make_worker_app
from worker.descriptions import share_descriptions
from worker.devices import devices_of_worker
from worker.ears import Ears
from worker.gpu_health import GpuWatch
from worker.node import Node
from worker.nvml import Nvml
from worker.processes import forbid_inspection
from worker.tasks import Run

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_PREDECESSOR_LIMIT_S = 10.0


class FolderInUse(RuntimeError):
    """Two workers were started on one work folder."""


def serve(settings: Settings, run: Run) -> int:
    """Work until SIGTERM, handing each claim to `run`; returns the exit status.

    Raises UnfitRedis, UnfitDevices, FolderInUse, and Conflict for a name that is taken, when this node cannot
    work as it is set up.
    """
    if settings.trainer_uid is None:
        forbid_inspection()
    with _only_worker_here(settings):
        devices = devices_of_worker(settings.slots)
        watch = GpuWatch(Nvml(), devices.uuids)
        watch.keep_looking(settings.scaled(settings.gpu_health_s))
        engine = make_engine(settings.database_url.get_secret_value(), statement_timeout_s=5, pool_size=2)
        queue = redis_client(settings.redis_url.get_secret_value())
        _when_it_is_there(lambda: check_redis(queue), redis.RedisError)
        _when_it_is_there(lambda: share_descriptions(engine, settings), DBAPIError)
        node = Node(settings, devices, engine, queue, watch.unhealthy)
        _when_it_is_there(node.register, DBAPIError)
        signals.worker_shutting_down.connect(node.ask_to_leave, weak=False)
        app = make_worker_app(settings, node.incarnation, run)
        worker = make_worker(app, settings, devices.n_slots)
        node.keep_beating(Ears(settings, engine, queue, worker, devices.n_slots))
        worker.start()
        return int(worker.exitcode or 0)


def _when_it_is_there(act: Callable[[], None], away: type[Exception]) -> None:
    """Do it as soon as what it needs can be reached."""
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return act()
        except away as error:
            structlog.stdlib.get_logger("worker").error("waits for a server", error=str(error))
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)


@contextmanager
def _only_worker_here(settings: Settings) -> Iterator[None]:
    """Two workers on one work folder would take each other's locks for their own dead's."""
    work_dir = settings.work_dir
    work_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(work_dir / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up_at = time.monotonic() + settings.scaled(_PREDECESSOR_LIMIT_S)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                raise FolderInUse(
                    f"another worker uses {work_dir}; give each its own THAW_WORK_DIR"
                ) from None
            time.sleep(_FIRST_WAIT_S)
    try:
        yield
    finally:
        os.close(descriptor)
