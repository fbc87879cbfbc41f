"""A job on two of three nodes of a whole stack: whatever dies, all of it ends, waits again and goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conditions import wait_for
from scans import write_digits
from stacks import Stack, running_stack

from thaw.client import Thaw
from thaw.shapes import Job

pytestmark = pytest.mark.slow

# 1.0 measures at default lease times.
SCALE = float(os.environ.get("TEST_TIME_SCALE", "0.2"))
WHOLE_GANG_ENDS_WITHIN_S = 60 * SCALE + 5
WAITS_AGAIN_WITHIN_S = 90 * SCALE + 20
STARTS_WITHIN_S = 120


@dataclass(frozen=True)
class Share:
    """One node's processes of the job, from Celery's main process down."""

    node: str
    worker: psutil.Process

    def find(self, word: str) -> psutil.Process:
        return next(one for one in self.worker.children(recursive=True) if word in one.cmdline())

    @property
    def launcher(self) -> psutil.Process:
        return self.find("worker.launcher")

    @property
    def trainers(self) -> list[psutil.Process]:
        return [self.launcher, *self.launcher.children(recursive=True)]

    @property
    def all(self) -> list[psutil.Process]:
        return [self.worker, *self.worker.children(recursive=True)]


def rank(share: Share) -> list[psutil.Process]:
    return agent(share)[0].children()[:1]


def agent(share: Share) -> list[psutil.Process]:
    return [share.find("torch.distributed.run")]


def launcher(share: Share) -> list[psutil.Process]:
    return [share.launcher]


def supervisor(share: Share) -> list[psutil.Process]:
    parent = share.launcher.parent()
    assert parent is not None
    return [parent]


def worker(share: Share) -> list[psutil.Process]:
    return share.all


# Who is killed, on the node of which rank, and what the job's try is said to have ended of.
KILLS: Sequence[tuple[Callable[[Share], list[psutil.Process]], int, str]] = (
    (rank, 1, "process_killed"),
    (agent, 0, "process_killed"),
    (launcher, 1, "worker_lost"),
    (supervisor, 0, "worker_lost"),
    (worker, 1, "worker_lost"),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {"THAW_TIME_SCALE": str(SCALE), "THAW_MAX_ATTEMPTS": "12"}
    with running_stack(tmp_path_factory.mktemp("gangs"), workers=3, slots=1, **settings) as stack:
        yield stack


@pytest.mark.timeout(1200)
def test_a_gang_ends_as_a_whole_and_goes_on_whatever_of_it_dies(stack: Stack, tmp_path: Path) -> None:
    with Thaw(stack.url, stack.api_key) as thaw:
        job = thaw.jobs.create(long_gang(thaw.files.upload(write_digits(tmp_path / "digits", 0, 600)).id)).id
        for number, (victims, of_rank, code) in enumerate(KILLS, start=1):
            gang = training(stack, thaw, job, number)
            trainers = [process for share in gang for process in share.trainers]
            killed_at = time.monotonic()
            kill(victims(gang[of_rank]))
            told(victims.__name__, number, ended_after(trainers, killed_at), lost(thaw, job, number, code))

        gang = training(stack, thaw, job, len(KILLS) + 1)
        a_node_falls_silent(thaw, job, len(KILLS) + 1, gang)
        a_node_is_drained(stack, thaw, job, len(KILLS) + 2)

        training(stack, thaw, job, len(KILLS) + 3)
        thaw.jobs.pause(job)
        wait_for(lambda: thaw.jobs.get(job).phase == "paused", STARTS_WITHIN_S, "the pause")
        epochs = next(iter(thaw.jobs.checkpoints(job)))["epoch"] + 1
        thaw.jobs.resume(job, {"hyperparameters": {"n_epochs": epochs}})
        ended = thaw.jobs.wait(job)

        assert (ended.status, ended.why_failed) == ("succeeded", "")
        outcomes = [attempt["outcome"] for attempt in ended.raw["attempts"]]
        assert outcomes == ["lost"] * (len(KILLS) + 1) + ["stopped", "stopped", "succeeded"]
        wait_for(lambda: all_slots_free(thaw), 30, "the nodes to give their slots back")
        assert not [one for one in stack.process.children(recursive=True) if is_trainer(one)]


def a_node_falls_silent(thaw: Thaw, job: str, number: int, gang: Sequence[Share]) -> None:
    """As if its cable were pulled: no connection closes, and nobody there can say anything."""
    stopped, alive = gang[0], gang[1]
    trainers, frozen = alive.trainers, stopped.all
    left_there = stopped.trainers
    fell_at = time.monotonic()
    send(frozen, signal.SIGSTOP)
    try:
        ended_s = ended_after(trainers, fell_at)
        told("silent node", number, ended_s, lost(thaw, job, number, "worker_lost"))
        wait_for(lambda: len(thaw.jobs.get(job).raw["attempts"]) == number + 1, STARTS_WITHIN_S, "the next")
        assert stopped.node not in nodes_of(thaw.jobs.get(job))
    finally:
        send(frozen, signal.SIGCONT)
    _, left = psutil.wait_procs(left_there, timeout=30)
    assert not left, "a node that comes back ends what it still has"


def a_node_is_drained(stack: Stack, thaw: Thaw, job: str, number: int) -> None:
    """The gang leaves as a whole, with a checkpoint, for two other nodes."""
    gang = training(stack, thaw, job, number)
    thaw.drain(gang[1].node)
    try:
        moved = wait_for(lambda: running(thaw, job, number + 1), STARTS_WITHIN_S, "the gang elsewhere")
        left = moved.raw["attempts"][number - 1]
        assert [share["outcome"] for share in left["nodes"]] == ["stopped", "stopped"], left
        assert gang[1].node not in nodes_of(moved)
    finally:
        thaw.undrain(gang[1].node)


def training(stack: Stack, thaw: Thaw, job: str, number: int) -> list[Share]:
    """The gang's shares by node rank, once try `number` has made steps."""
    began = wait_for(lambda: running(thaw, job, number), STARTS_WITHIN_S, f"try {number}")
    since = began.raw["attempts"][-1]["running_at"]

    def steps() -> bool:
        found = thaw.jobs.get(job)
        assert not found.is_over, found.why_failed
        progress = (found.raw["progress"] or {}).get("train")
        return progress is not None and progress["time"] > since + 1

    wait_for(steps, STARTS_WITHIN_S, f"try {number} to train")
    return [Share(node, worker_of(stack, node)) for node in nodes_of(began)]


def running(thaw: Thaw, job: str, number: int) -> Job | None:
    found = thaw.jobs.get(job)
    assert not found.is_over, found.why_failed
    return found if found.phase == "running" and len(found.raw["attempts"]) == number else None


def nodes_of(job: Job) -> list[str]:
    """Where its newest try runs, by node rank."""
    return [share["node"] for share in job.raw["attempts"][-1]["nodes"]]


def worker_of(stack: Stack, node: str) -> psutil.Process:
    workers = (child for child in stack.process.children() if "worker" in child.cmdline())
    return next(one for one in workers if one.environ().get("THAW_NODE_NAME") == node)


def ended_after(trainers: Sequence[psutil.Process], since: float) -> float:
    """Seconds until none of the gang's processes was left."""
    _, alive = psutil.wait_procs(trainers, timeout=WHOLE_GANG_ENDS_WITHIN_S)
    assert not alive, f"still there after {WHOLE_GANG_ENDS_WITHIN_S:g} s: {alive}"
    return time.monotonic() - since


def lost(thaw: Thaw, job: str, number: int, code: str) -> str:
    """Its message, once that try was given up; the first cause counts, whoever else saw what of it."""

    def found() -> dict[str, object] | None:
        attempt = thaw.jobs.get(job).raw["attempts"][number - 1]
        return attempt["error"] if attempt["outcome"] == "lost" else None

    error = wait_for(found, WAITS_AGAIN_WITHIN_S, f"the loss of try {number}")
    assert error["code"] == code, error
    return str(error["message"])


def told(what: str, number: int, ended_s: float, message: str) -> None:
    sys.stdout.write(f"{what:<12} try {number}: the gang ended after {ended_s:5.1f} s: {message}\n")


def kill(processes: Sequence[psutil.Process]) -> None:
    send(processes, signal.SIGKILL)


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def is_trainer(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "worker.training" in process.cmdline()
    return False


def all_slots_free(thaw: Thaw) -> bool:
    return all(slot["state"] == "free" for node in thaw.nodes() for slot in node["slots"])


def long_gang(file: str) -> dict[str, object]:
    return {
        "model": "custom_network",
        "training_file": file,
        "freeze": ["conv1"],
        "hyperparameters": {"n_epochs": 5000, "batch_size": 16, "lr_schedule": "constant"},
        "preprocessing": {"image_size": 14},
        "resources": {"nodes": 2, "devices_per_node": 1},
    }
