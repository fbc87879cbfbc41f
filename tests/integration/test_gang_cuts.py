"""Two hosts with a worker each that reach Postgres, Redis and the store, and for a while not one another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Any

import pytest
from dispatch_rows import World
from hosts import Host, cut
from launched import SOURCES, eventually
from supervised import House, resolved_job
from test_gangs import cabled

from scheduler.loop import Scheduler
from shared.db.engine import make_engine
from shared.db.models import Attempt
from shared.domain.job import AllocationState, JobState, NodeState, Outcome
from shared.queue import make_app
from shared.settings import Settings
from worker.registered import registered_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# 1.0 measures at default lease times. Below it leases are longer in proportion, so that none runs out on a
# busy machine.
SCALE = float(os.environ.get("TEST_TIME_SCALE", "0.1"))
TIMES = {"time_scale": SCALE} | (
    {"lease_s": 180.0, "hold_after_s": 120.0, "gang_s": 60.0} if SCALE < 1 else {}
)
GANG_ENDS_WITHIN_S = 60 * SCALE + 5
SOON_S = 90.0
LONG = 15


@pytest.fixture
def house(settings: Settings) -> Iterator[House]:
    scaled = settings.model_copy(update=TIMES)
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=5)
    house = House(scaled, World(engine).found().know_models())
    yield house
    eventually(lambda: not house.trainers(), within_s=10, what="no trainer is left")
    engine.dispose()


def test_a_gang_ends_when_its_nodes_reach_all_but_one_another_and_goes_on_when_they_do(house: House) -> None:
    with cabled() as hosts, at_work(house, hosts):
        job = house.job(n_epochs=LONG, nodes=2, target=installed_network())
        eventually(lambda: house.checkpoints(job), within_s=SOON_S, what="it trains")
        with cut(*hosts):
            ended_s = ended_after(house)
            lost = eventually(lambda: ended(house, job), within_s=SOON_S, what="its try is given up")
            check_told(house, lost)
            sys.stdout.write(f"cut between two nodes: the gang ended after {ended_s:.1f} s\n")
        eventually(
            lambda: house.world.read(job).state is JobState.SUCCEEDED,
            within_s=SOON_S + 90 * SCALE,
            what="it goes on to its end",
        )
        eventually(lambda: not house.trainers(), within_s=10, what="no process of it is left")

    tries = [one.outcome for one in house.world.attempts(job) if one.outcome is not Outcome.INCOMPLETE]
    assert tries == [Outcome.LOST, Outcome.SUCCEEDED]
    assert house.world.read(job).attempts_used == 1
    events = house.world.events(job)
    waits_again = [one for one in events if one.data.get("code") == "node_unreachable"]
    assert [(one.data["new"], "could not reach" in one.message) for one in waits_again] == [("queued", True)]
    assert [one for one in events if one.data.get("code") == "resumed"], "it goes on from its checkpoint"


def ended_after(house: House) -> float:
    """Seconds until no process of the gang was left, on either host."""
    gang, since = house.trainers(), time.monotonic()
    assert len(gang) >= 4, "an agent and a rank on each host"
    eventually(
        lambda: not set(gang) & set(house.trainers()), within_s=GANG_ENDS_WITHIN_S, what="the gang has ended"
    )
    return time.monotonic() - since


def ended(house: House, job: str) -> Attempt | None:
    first = house.world.attempts(job)[0]
    return first if first.outcome else None


def check_told(house: House, lost: Attempt) -> None:
    """Which node could not reach which; both kept their leases, and told their ends themselves."""
    first, second = house.world.shares(lost.id)
    assert lost.error is not None
    assert (lost.outcome, lost.error["code"], lost.error["node"]) == (
        Outcome.LOST,
        "node_unreachable",
        second.node_id,
    )
    assert f"the node {second.node_id} could not reach the node {first.node_id}" in lost.error["message"]
    assert (first.state, second.state) == (AllocationState.ENDED, AllocationState.ENDED)
    assert house.world.node_row(second.node_id).state is NodeState.SUSPECT, "so others may be tried first"


def installed_network() -> dict[str, Any]:
    """As the scheduler matches it with what the nodes have."""
    network = resolved_job()["resolved"]["target"]
    found = next(model for model in registered_models() if model.name == network["name"])
    return {**network, "hash": found.hash}


@contextmanager
def at_work(house: House, hosts: tuple[Host, ...]) -> Iterator[None]:
    """A scheduler, and a real worker on each of the hosts."""
    stop = Event()
    app = make_app(house.settings.redis_url.get_secret_value())
    thread = Thread(target=Scheduler(house.world.engine, app, house.settings).run, args=(stop,))
    thread.start()
    with ExitStack() as stack:
        stack.callback(thread.join, 10)
        stack.callback(stop.set)
        for number, host in enumerate(hosts):
            stack.enter_context(worker(house, f"node-{number}", host))
        yield


@contextmanager
def worker(house: House, node: str, host: Host) -> Iterator[None]:
    settings = house.settings
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH", "")])),
        "THAW_DATABASE_URL": settings.database_url.get_secret_value(),
        "THAW_REDIS_URL": settings.redis_url.get_secret_value(),
        "THAW_STORE_URL": settings.store_url,
        "THAW_WORK_DIR": str(house.work_dir(node)),
        "THAW_NODE_NAME": node,
        "THAW_SLOTS": "1",
        "THAW_ADVERTISE_HOST": host.address,
        "THAW_TRAINER_ENV": json.dumps({"TINY_MARKER": house.marker}),
        **{f"THAW_{name.upper()}": str(value) for name, value in TIMES.items()},
    }
    command = [*host.within, sys.executable, "-m", "worker"]
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=SOURCES)
    try:
        yield
    finally:
        process.kill()
        process.wait()
