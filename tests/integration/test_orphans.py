"""kill -9 at every level, again and again at random moments: nothing is left, no slot is given out early."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

import psutil
import pytest
from dispatch_rows import World
from launched import free_port, marked
from mortal_program import on_slot
from sqlalchemy import select

from scheduler.loop import Scheduler
from shared.db.engine import make_engine, transaction
from shared.db.models import Attempt
from shared.queue import make_app
from shared.settings import Settings
from worker.processes import process_table
from worker.slots import slot_lock_path, try_exclusive

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = Path(__file__).resolve().parent / "mortal_program.py"
LEVELS = ("celery main", "pool process", "launcher", "agent", "rank", "loader")
KILLS = 50
NODES = 2
GONE_WITHIN_S = 10.0
SEED = 4
Found = TypeVar("Found")


def eventually(look: Callable[[], Found], *, within_s: float, what: str) -> Found:
    """What `look` returns once it is true. Looks seldom: each look reads the whole table of processes."""
    give_up_at = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < give_up_at, f"not within {within_s:g} s: {what}"
        time.sleep(0.2)
    return found


class Victim:
    """A node of one slot whose processes are killed, and started again where that is somebody's task."""

    def __init__(self, name: str, settings: Settings, marker: str, notes: Path) -> None:
        self.name = name
        self.work_dir = settings.work_dir / name
        self.lock = slot_lock_path(self.work_dir, 0)
        self._marker = f"{marker}-{name}"
        self._environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{PROGRAM.parent}",
            "THAW_DATABASE_URL": settings.database_url.get_secret_value(),
            "THAW_REDIS_URL": settings.redis_url.get_secret_value(),
            "THAW_STORE_URL": settings.store_url,
            "THAW_WORK_DIR": str(self.work_dir),
            "THAW_NODE_NAME": name,
            "THAW_SLOTS": "1",
            "THAW_PORT_BASE": str(free_port()),
            "THAW_NODE_HEARTBEAT_S": "0.3",
            "THAW_TRAINER_ENV": json.dumps({"TINY_MARKER": self._marker}),
            "MORTAL_FOLDER": str(notes),
        }
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, str(PROGRAM)], env=self._environment, cwd=ROOT)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        eventually(lambda: not self.trainers(), within_s=GONE_WITHIN_S, what="no trainer is left at the end")

    def trainers(self) -> list[int]:
        """The agent and what is below it, wherever it hangs in the tree of processes."""
        return marked(self._marker)

    def find(self, level: str) -> psutil.Process | None:
        """The process of that level, None while there is none."""
        try:
            return self._find(level)
        except (psutil.NoSuchProcess, StopIteration):
            return None

    def _find(self, level: str) -> psutil.Process:
        main = psutil.Process(self.process.pid)
        if level == "celery main":
            return main
        below = main.children(recursive=True)
        launcher = next(one for one in below if "worker.launcher" in one.cmdline())
        if level == "launcher":
            return launcher
        if level == "pool process":
            parent = launcher.parent()
            return parent if parent is not None else main
        agent = next(iter(launcher.children()))
        if level == "agent":
            return agent
        rank = next(iter(agent.children()))
        return rank if level == "rank" else next(iter(rank.children()))

    def kill(self, level: str, after_s: float) -> None:
        """kill -9 that level, so long after it is there; what trained then is gone in time."""
        before = eventually(
            lambda: self._strike(level, after_s), within_s=200, what=f"{level} of {self.name}"
        )
        if level == "celery main":
            self.process.wait()
        eventually(
            lambda: not alive(before),
            within_s=GONE_WITHIN_S,
            what=f"the processes {before} of {self.name} are gone after the {level} was killed",
        )
        if level == "celery main":
            self.start()

    def _strike(self, level: str, after_s: float) -> set[int] | None:
        """The launcher and all trainers as they were before the blow; None where it met nobody."""
        launcher = self.find("launcher")
        if launcher is None or self.find(level) is None:
            return None
        time.sleep(after_s)  # the moment of the blow, not a wait for anything
        victim, before = self.find(level), {launcher.pid, *self.trainers()}
        if victim is None:
            return None
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return None
        return before


def alive(pids: set[int]) -> set[int]:
    """Those of them that live still."""
    return {entry.pid for entry in process_table() if entry.pid in pids and entry.state not in "ZX"}


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=10)
    world = World(engine).found().know_models()
    yield world
    engine.dispose()


@pytest.fixture
def scheduling(world: World, settings: Settings) -> Iterator[None]:
    stop = Event()
    quick = settings.model_copy(update={"schedule_s": 0.1})
    scheduler = Scheduler(world.engine, make_app(settings.redis_url.get_secret_value()), quick)
    thread = Thread(target=scheduler.run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join(10)


@pytest.mark.timeout(900)  # about a minute on two idle cores
@pytest.mark.usefixtures("scheduling")
def test_fifty_kills_leave_no_process_and_give_no_slot_out_early(
    world: World, settings: Settings, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    jobs = [world.job(max_attempts=10 * KILLS) for _ in range(NODES)]
    victims = [Victim(f"node-{n}", settings, tmp_path.name, notes) for n in range(NODES)]
    try:
        with ThreadPoolExecutor(NODES) as pool:
            list(pool.map(lambda victim: torment(victim, KILLS // NODES), victims))
        eventually(lambda: all(victim.find("rank") for victim in victims), within_s=90, what="all run again")
        assert [path.read_text() for path in notes.glob("overlap-*")] == []
        assert len(list(notes.glob("start-*"))) > KILLS // 2
        for job in jobs:
            assert world.read(job).state not in ("failed", "cancelled")
    finally:
        for victim in victims:
            victim.end()
    # A launcher outlives its ranks by the moment in which it tidies up, and holds the slot's lock until then.
    eventually(
        lambda: all(try_exclusive(victim.lock) and not on_slot(victim.lock) for victim in victims),
        within_s=GONE_WITHIN_S,
        what="the slots are free",
    )
    with transaction(world.engine) as session:
        tries = list(session.scalars(select(Attempt).order_by(Attempt.created_at)))
    assert len({one.lease_token for one in tries}) == len(tries)


def torment(victim: Victim, times: int) -> None:
    chance = random.Random(f"{SEED} {victim.name}")
    levels = [LEVELS[number % len(LEVELS)] for number in range(times)]
    chance.shuffle(levels)
    for level in levels:
        victim.kill(level, after_s=chance.choice([0.0, chance.uniform(0, 0.5), chance.uniform(0, 2)]))


def test_each_process_below_a_rank_that_loads_data_dies_with_it() -> None:
    """torch's own DataLoader, as the engine opens it."""
    program = (
        "import os, sys, time, torch\n"
        "from worker.training.loading import Batches\n"
        "class Pictures:\n"
        "    cache = None\n"
        "    class samples: masks = None\n"
        "    def batch(self, indices): time.sleep(600)\n"
        "from worker.training.ranks import Ranks\n"
        "batches = Batches(Pictures(), None, Ranks(0, 1, 0, 1, torch.device('cpu')))\n"
        "batches.n_workers = 2\n"
        "next(iter(batches.load([[0], [1]])))\n"
    )
    rank = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        workers = eventually(loaders_of(rank.pid), within_s=60, what="two processes that load data")
        rank.kill()
        rank.wait()
        _, alive = psutil.wait_procs(workers, timeout=GONE_WITHIN_S)
        assert alive == []
    finally:
        rank.kill()
        rank.wait()


def loaders_of(rank: int) -> Callable[[], list[psutil.Process]]:
    def look() -> list[psutil.Process]:
        children = psutil.Process(rank).children()
        return children if len(children) == 2 else []

    return look
