"""A slot on which a process is left that will not die is given to nobody until that process is gone."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dispatch_rows import World
from launched import SOURCES, eventually, state_of
from supervised import House

from scheduler.placing import place_jobs
from shared.db.engine import make_engine
from shared.db.steps import run_step
from shared.domain.job import JobState
from shared.queue import redis_client
from shared.settings import Settings
from worker.devices import Devices
from worker.node import Node
from worker.slots import prepare_slot_locks, slot_lock_path

# No descendant of any launcher, so nothing kills it; stopped, as one that waits in the kernel for a device.
LINGERS = "import sys, time; from pathlib import Path; from worker.slots import hold_shared\n"
LINGERS += "hold_shared(Path(sys.argv[1])); print('holds', flush=True); time.sleep(600)"


@pytest.fixture
def house(settings: Settings) -> Iterator[House]:
    settings.node_name = "node-0"
    engine = make_engine(settings.database_url.get_secret_value())
    world = World(engine).found()
    world.node()
    yield House(settings, world)
    engine.dispose()


@contextmanager
def lingering(lock: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", LINGERS, str(lock)], cwd=SOURCES, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: state_of(process.pid) == "T")
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_slot_whose_process_will_not_die_is_left_alone_until_it_is_gone(
    house: House, settings: Settings
) -> None:
    world = house.world
    prepare_slot_locks(settings.work_dir, 2)
    with lingering(slot_lock_path(settings.work_dir, 1)) as process:
        ended = house.job(archive=unusable())
        assert house.supervise(house.claim(ended)).wait(90) == 0
        assert world.read(ended).state is JobState.FAILED
        assert world.slots() == ["dirty", "dirty"], "which of the two is in use is the node's to find out"

        node = new_life(house)
        node.beat()
        assert world.slots() == ["free", "dirty"]
        first, second = world.job(), world.job()
        (offer,) = run_step(world.engine, place_jobs, settings)
        assert world.allocation(offer.allocation_id).slots == [0]
        waiting = next(job for job in map(world.read, (first, second)) if job.state is JobState.QUEUED)
        assert waiting.wait_reason == "needs 1 of type any on one node; the largest free block is 0"

        process.kill()
        process.wait()
        node.beat()
        assert world.slots() == ["held", "free"]
        (offer,) = run_step(world.engine, place_jobs, settings)
        assert world.allocation(offer.allocation_id).slots == [1]


def new_life(house: House) -> Node:
    """The node's worker, as it looks after its slots."""
    queue = redis_client(house.settings.redis_url.get_secret_value())
    node = Node(house.settings, Devices("cpu", None, 2), house.world.engine, queue)
    node.register()
    return node


def unusable() -> bytes:
    """Fails its job before any trainer starts."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../evil.png", b"x")
    return packed.getvalue()
