"""Real jobs on two ranks that leave their slots for now: what they keep while store or ranks do not help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit

import pytest
from dispatch_rows import World
from launched import SOURCES, eventually, free_port
from supervised import House
from test_dispatch_worker import is_ready

from scheduler.loop import Scheduler
from shared.db.engine import make_engine, transaction
from shared.db.history import lock_job
from shared.db.stops import ask_to_stop
from shared.domain.job import STOP_GRACE_S, JobState, NodeState, Outcome, StopReason
from shared.queue import make_app, publish
from shared.settings import Settings

pytestmark = pytest.mark.slow

END_S = 90.0
LONG = 5_000
# A lease of 6 s, and 15 s to leave: whoever stopped renewing while it leaves would lose the job.
TIMES = {"time_scale": 0.05, "lease_s": 120.0, "hold_after_s": 80.0, "offer_s": 600.0, "gang_s": 1200.0}


@pytest.fixture
def house(settings: Settings) -> Iterator[House]:
    scaled = settings.model_copy(update=TIMES)
    engine = make_engine(settings.database_url.get_secret_value())
    house = House(scaled, World(engine).found())
    yield house
    eventually(lambda: not house.trainers(), within_s=10, what="no trainer is left")
    engine.dispose()


@contextmanager
def store_away(settings: Settings) -> Iterator[None]:
    """The store's folder is a file for a while."""
    folder = Path(urlsplit(settings.store_url).path)
    folder.rename(folder.with_name("aside"))
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        folder.with_name("aside").rename(folder)


def lease_until(house: House, allocation_id: str) -> float:
    expires = house.world.allocation(allocation_id).lease_expires_at
    assert expires is not None, "the lease is held"
    return expires.timestamp()


def test_a_paused_job_keeps_its_last_step_though_the_store_is_away_for_more_than_a_lease(
    house: House,
) -> None:
    house.world.node()
    job = house.job(n_epochs=LONG)
    claim = house.claim(job)
    supervisor = house.supervise(claim)
    eventually(lambda: house.metrics(job), within_s=END_S, what="it trains")
    with store_away(house.settings):
        with transaction(house.world.engine) as session:
            ask_to_stop(session, lock_job(session, job), StopReason.PAUSE, actor="test")
        eventually(lambda: not house.trainers(), within_s=END_S, what="the ranks have left")
        first = lease_until(house, claim.allocation_id)
        lease_s = house.settings.scaled(house.settings.lease_s)
        eventually(
            lambda: lease_until(house, claim.allocation_id) > first + lease_s,
            within_s=END_S,
            what="a lease's time has passed",
        )
        assert house.world.read(job).state is JobState.STOPPING
        assert house.world.slots() == ["held", "held"]
    assert supervisor.wait(END_S) == 0

    row = house.world.read(job)
    assert (row.state, row.attempts_used) == (JobState.PAUSED, 0)
    assert house.world.slots() == ["free", "free"]
    assert row.progress is not None
    newest = house.checkpoints(job)[-1]
    assert newest.step >= row.progress["train"]["step"], "no step that was told of is lost"


def test_a_result_that_the_store_does_not_take_before_its_node_leaves_costs_no_attempt(
    settings: Settings,
) -> None:
    shorter = {**TIMES, "time_scale": 0.02, "lease_s": 300.0, "hold_after_s": 200.0}
    engine = make_engine(settings.database_url.get_secret_value())
    house = House(settings.model_copy(update=shorter), World(engine).found())
    house.world.node()
    job = house.job(n_epochs=40)
    supervisor = house.supervise(house.claim(job))
    eventually(lambda: house.metrics(job), within_s=END_S, what="it trains")
    with store_away(house.settings):
        eventually(lambda: not house.trainers(), within_s=END_S, what="it has its result")
        with transaction(engine) as session:
            ask_to_stop(session, lock_job(session, job), StopReason.DRAIN, actor="test")
        assert supervisor.wait(END_S) == 0
    row = house.world.read(job)
    assert (row.state, row.attempts_used) == (JobState.QUEUED, 0)
    assert "goes on from an earlier one" in house.world.events(job)[-1].message

    assert house.supervise(house.claim(job)).wait(END_S) == 0
    assert house.world.read(job).state is JobState.SUCCEEDED
    engine.dispose()


@pytest.fixture
def worker(house: House, settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """The real worker of node-0 on its own, with a scheduler beside it."""
    scaled = house.settings
    house.world.know_models()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH", "")])),
        "THAW_DATABASE_URL": scaled.database_url.get_secret_value(),
        "THAW_REDIS_URL": scaled.redis_url.get_secret_value(),
        "THAW_STORE_URL": scaled.store_url,
        "THAW_WORK_DIR": str(scaled.work_dir),
        "THAW_NODE_NAME": "node-0",
        "THAW_SLOTS": "2",
        "THAW_PORT_BASE": str(free_port()),
        "THAW_TRAINER_ENV": json.dumps({"TINY_MARKER": house.marker}),
        **{f"THAW_{name.upper()}": str(value) for name, value in TIMES.items()},
    }
    stop = Event()
    scheduler = Scheduler(house.world.engine, make_app(scaled.redis_url.get_secret_value()), scaled)
    thread = Thread(target=scheduler.run, args=(stop,))
    thread.start()
    process = subprocess.Popen([sys.executable, "-m", "worker"], env=environment, cwd=SOURCES)
    yield process
    process.kill()
    process.wait()
    stop.set()
    thread.join(10)


def obey(house: House) -> None:
    """The ranks do as they are asked."""


def stand_still(house: House) -> None:
    """The ranks hear nothing any more."""
    for pid in house.ranks():
        os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("ranks", [obey, stand_still])
def test_a_worker_that_is_told_to_leave_hands_its_job_back_within_the_grace(
    house: House, worker: subprocess.Popen[bytes], ranks: Callable[[House], None]
) -> None:
    job = house.job(n_epochs=LONG)
    eventually(lambda: is_ready(house.world), within_s=END_S, what="the worker is up")
    offer = house.world.offer(job, slots=(0, 1))
    app = make_app(house.settings.redis_url.get_secret_value())
    publish(app, node_id="node-0", allocation_id=offer.allocation_id, dispatch_seq=1)
    eventually(lambda: house.metrics(job), within_s=END_S, what="it trains")
    ranks(house)

    worker.terminate()
    began = time.monotonic()
    eventually(lambda: house.world.read(job).state is not JobState.RUNNING, within_s=END_S)
    assert house.world.node_row().state is NodeState.DRAINING
    worker.terminate()
    assert worker.wait(END_S) == 0

    grace_s = house.settings.scaled(STOP_GRACE_S[StopReason.DRAIN])
    lease_s = house.settings.scaled(house.settings.lease_s)
    row, attempt = house.world.read(job), house.world.attempts(job)[0]
    assert (row.state, row.attempts_used, attempt.outcome) == (JobState.QUEUED, 0, Outcome.STOPPED)
    assert "drain" in [event.data.get("stop_reason") for event in house.world.events(job)]
    assert house.world.slots() == ["free", "free"]
    assert not house.trainers()
    if ranks is stand_still:
        assert time.monotonic() - began > grace_s > 2 * lease_s, "it renewed for as long as it waited"
        assert f"did not leave within {grace_s:g} s" in house.world.events(job)[-1].message
    else:
        assert row.progress is not None
        assert house.checkpoints(job)[-1].step >= row.progress["train"]["step"]
