"""A launcher at work on tiny trainers, for tests: real processes, real torch elastic, no network to train."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shared.domain.events import HEARTBEAT_FILE, STOP_FILE, Heartbeat, OutcomeReport, StopRequest
from worker.launch import LAUNCH_FILE, LaunchPlan
from worker.outcome import read_outcome
from worker.processes import process_table
from worker.run_folder import write_whole

T = TypeVar("T")
SOURCES = Path(__file__).parents[2]

# What a trainer of ours does first, then what the test's own rank does.
PREAMBLE = """
import json, os, sys, time
from pathlib import Path
from worker.training.process import prepare
prepare(os.environ)
rank, out = int(os.environ["RANK"]), Path(sys.argv[2])
def mark(name, text=""):
    (out / name).with_suffix(".tmp").write_text(text); (out / name).with_suffix(".tmp").rename(out / name)
def error(code, when):
    report = {"code": code, "message": f"rank {rank} says {code}", "rank": rank, "time": when}
    mark(f"error-rank{rank}.json", json.dumps(report))
def outcome(name):
    mark("outcome.json", json.dumps({"outcome": name}))
mark(f"started-{rank}", str(os.getpid()))
"""


def eventually(look: Callable[[], T], *, within_s: float = 60.0, what: str = "") -> T:
    """What `look` returns once it is true."""
    until = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < until, f"not within {within_s:g} s: {what or look}"
        time.sleep(0.02)
    return seen


@dataclass
class Launched:
    """A running launcher and its folder. `marker` is in the environment of every process it starts."""

    run: Path
    marker: str
    process: subprocess.Popen[str]
    plan: LaunchPlan

    @property
    def agent(self) -> int:
        """Process id of torch elastic's agent."""
        return next(entry.pid for entry in process_table() if entry.parent == self.process.pid)

    def rank(self, number: int) -> int:
        """Process id of a rank, once it has started."""
        path = self.run / f"started-{number}"
        return int(eventually(lambda: path.exists() and path.read_text(), what=f"rank {number} has started"))

    def beat(self, age_s: float = 0.0) -> None:
        beat(self.run, age_s)

    def ask_to_stop(self, reason: str, grace_s: float) -> None:
        request = StopRequest.model_validate({"reason": reason, "grace_s": grace_s})
        write_whole(self.run / STOP_FILE, request.model_dump_json())

    def outcome(self, within_s: float = 60.0) -> OutcomeReport:
        """How it ended, once the launcher has."""
        self.process.wait(within_s)
        told = read_outcome(self.run)
        assert told is not None, self.log()
        return told

    def log(self) -> str:
        return (self.run / "logs.txt").read_text()

    def left(self) -> list[int]:
        return marked(self.marker)


Launch = Callable[..., Launched]


@contextmanager
def launching(folder: Path) -> Iterator[Launch]:
    """Starts launchers on tiny trainers' sources, each in a folder of its own; at the end none is left."""
    started: list[Launched] = []

    def start(source: str, *, environment: dict[str, str] | None = None, **changes: Any) -> Launched:
        marker = uuid.uuid4().hex
        run = folder / marker
        plan = prepare_run(run, source, marker, **changes)
        started.append(start_launcher(run, plan, marker, **(environment or {})))
        return started[-1]

    yield start
    for launched in started:
        launched.process.kill()
        launched.process.wait()
        eventually(lambda of=launched: not of.left(), within_s=10, what="the trainers are gone")


def beat(run: Path, age_s: float = 0.0) -> None:
    """A renewal of the lease, confirmed, that was sent `age_s` seconds ago."""
    sent = time.clock_gettime(time.CLOCK_BOOTTIME) - age_s
    write_whole(run / HEARTBEAT_FILE, Heartbeat(boottime_s=sent).model_dump_json())


def prepare_run(folder: Path, source: str, marker: str, *, ranks: int = 2, **changes: Any) -> LaunchPlan:
    """A run's folder with all that the launcher reads, and `source` as the module `tiny_trainer`."""
    folder.mkdir(parents=True)
    modules = folder / "modules"
    modules.mkdir()
    (modules / "tiny_trainer.py").write_text(PREAMBLE + textwrap.dedent(source))
    plan = LaunchPlan.model_validate(
        {
            "nodes": 1,
            "node_rank": 0,
            "master_addr": "127.0.0.1",
            "master_port": free_port(),
            "slot_locks": [str(folder / f"slot-{n}.lock") for n in range(ranks)],
            "threads_per_rank": 1,
            "trainer_env": {"TINY_MARKER": marker, "PYTHONPATH": str(modules)},
            "hold_after_s": 30.0,
            "kill_after_held_s": 60.0,
            "log_bytes": 100_000,
            **changes,
        }
    )
    write_whole(folder / LAUNCH_FILE, plan.model_dump_json())
    beat(folder)
    return plan


def start_launcher(folder: Path, plan: LaunchPlan, marker: str, **environment: str) -> Launched:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "worker.launcher",
            folder,
            "--parent",
            str(os.getpid()),
            "--module",
            "tiny_trainer",
        ],
        cwd=SOURCES,
        env={**os.environ, **environment},
        text=True,
    )
    return Launched(folder, marker, process, plan)


def marked(marker: str) -> list[int]:
    """Living processes that have `TINY_MARKER=marker` in their environment."""
    return [entry.pid for entry in process_table() if entry.state not in "ZX" and _has(entry.pid, marker)]


def state_of(pid: int) -> str:
    """The kernel's letter for the process; "gone" when there is none."""
    return next((entry.state for entry in process_table() if entry.pid == pid), "gone")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _has(pid: int, marker: str) -> bool:
    try:
        return f"TINY_MARKER={marker}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended meanwhile, or is none of ours
        return False
