"""kill -9 at every level in the middle of a job: it goes on from its checkpoint, nothing is left over."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conditions import wait_for
from safetensors.numpy import load_file
from scans import write_digits
from stacks import Stack, running_stack

from thaw.client import Thaw
from thaw.shapes import Job

pytestmark = pytest.mark.slow

LEFT_OVER_LIMIT_S = 10
KILLS = 5
STEPS_PER_EPOCH = 89  # of 1,438 of the scans
EPOCHS = 16
EPOCHS_WITH_KILLS = 8  # progress is told a moment late: after the last of them there must be steps left
RECOVERY_LIMIT_S = 150


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that these tests may hurt: leases a fifth as long, and as many tries as it takes."""
    settings = {"THAW_TIME_SCALE": "0.2", "THAW_MAX_ATTEMPTS": "9"}
    with running_stack(tmp_path_factory.mktemp("kills"), **settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 1,797 scans, so that an epoch takes a moment."""
    return write_digits(tmp_path_factory.mktemp("digits"), 0, 1797)


def celery_main(stack: Stack) -> psutil.Process:
    return next(child for child in stack.process.children() if "worker" in child.cmdline())


def launcher(stack: Stack) -> psutil.Process:
    return below(stack, lambda command: "worker.launcher" in command)[0]


def agent(stack: Stack) -> psutil.Process:
    return below(stack, lambda command: "torch.distributed.run" in command)[0]


def rank(stack: Stack) -> psutil.Process:
    return ranks(stack)[0]


def ranks(stack: Stack) -> list[psutil.Process]:
    return [child for child in agent(stack).children() if "worker.training" in child.cmdline()]


def below(stack: Stack, wanted: Callable[[list[str]], bool]) -> list[psutil.Process]:
    return [process for process in stack.process.children(recursive=True) if wanted(process.cmdline())]


@pytest.mark.parametrize("victim", [celery_main, launcher, rank], ids=lambda f: f.__name__)
def test_a_job_outlives_the_kill_of_any_of_its_processes(
    own_stack: Stack, digits: Path, victim: Callable[[Stack], psutil.Process]
) -> None:
    with Thaw(own_stack.url, own_stack.api_key) as thaw:
        file = thaw.files.upload(digits).id
        job = thaw.jobs.create(long_job(file))
        wait_for(lambda: any(thaw.jobs.checkpoints(job.id)), 90, "a checkpoint in the store")
        trainers = [launcher(own_stack), *launcher(own_stack).children(recursive=True)]

        victim(own_stack).send_signal(signal.SIGKILL)

        gone, alive = psutil.wait_procs(trainers, timeout=LEFT_OVER_LIMIT_S)
        assert not alive, f"still there after {LEFT_OVER_LIMIT_S} s: {alive}; gone: {gone}"
        ended = wait_for(lambda: over(thaw.jobs.get(job.id)), RECOVERY_LIMIT_S, "the end of the job")
        assert (ended.status, ended.why_failed) == ("succeeded", "")
        assert [attempt["outcome"] for attempt in ended.raw["attempts"]] == ["lost", "succeeded"]
        resumed = [event for event in thaw.jobs.events(job.id) if event.data.get("code") == "resumed"]
        assert len(resumed) == 1
        assert resumed[0].data["step"] > 0
        wait_for(lambda: all_slots_free(thaw), 30, "the node to give its slots back")


def test_a_job_killed_at_five_random_steps_ends_with_the_bytes_of_one_that_nobody_touched(
    own_stack: Stack, digits: Path, tmp_path: Path
) -> None:
    seed = int(os.environ.get("TEST_SEED", random.randrange(2**32)))
    sys.stdout.write(f"seed {seed}: TEST_SEED={seed} draws the same steps\n")
    drawn = random.Random(seed)
    with Thaw(own_stack.url, own_stack.api_key) as thaw:
        file = thaw.files.upload(digits).id
        killed = thaw.jobs.create(long_job(file, n_epochs=EPOCHS))
        for number, step in enumerate(
            sorted(drawn.sample(range(1, EPOCHS_WITH_KILLS * STEPS_PER_EPOCH), KILLS)), start=1
        ):
            began = time.time()
            wait_for(lambda: has_done(thaw.jobs.get(killed.id), step, began), 90, f"step {step}")  # noqa: B023
            drawn.choice(ranks(own_stack)).send_signal(signal.SIGKILL)
            wait_for(lambda: n_lost(thaw.jobs.get(killed.id)) == number, 60, "the loss")  # noqa: B023
        ended = wait_for(lambda: over(thaw.jobs.get(killed.id)), RECOVERY_LIMIT_S, "the end of the job")
        untouched = thaw.jobs.wait(thaw.jobs.create(long_job(file, n_epochs=EPOCHS)).id)

        assert (ended.status, untouched.status) == ("succeeded", "succeeded"), ended.why_failed
        assert len(ended.raw["attempts"]) == KILLS + 1
        for name in ("model.safetensors", "trainable.safetensors"):
            one, other = (fetched(thaw, job.id, name, tmp_path) for job in (ended, untouched))
            assert same_tensors(one, other), f"{name} of seed {seed}"
        assert ended.raw["result"]["evaluation"] == untouched.raw["result"]["evaluation"]


def has_done(job: Job, step: int, since: float) -> bool:
    """Whether it has done so many steps, and a step of the attempt that runs since then was among them."""
    assert not job.is_over, "it was done before it could be killed"
    told = (job.raw["progress"] or {}).get("train")
    return told is not None and told["time"] > since and told["step"] >= step


def n_lost(job: Job) -> int:
    return sum(attempt["outcome"] == "lost" for attempt in job.raw["attempts"])


def fetched(thaw: Thaw, job_id: str, name: str, folder: Path) -> Path:
    artifact = next(found for found in thaw.jobs.artifacts(job_id) if found.name == name)
    return thaw.jobs.download(job_id, artifact, folder / job_id)


def same_tensors(one: Path, other: Path) -> bool:
    """Bit for bit; the header of a delta may name its job."""
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(
        first[name].tobytes() == second[name].tobytes() for name in first
    )


def long_job(file: str, n_epochs: int = 20) -> dict[str, object]:
    """Long enough to be killed in the middle, on two ranks."""
    return {
        "model": "custom_network",
        "training_file": file,
        "validation_fraction": 0.2,
        "freeze": ["conv1"],
        "hyperparameters": {"n_epochs": n_epochs, "batch_size": 16, "learning_rate": 0.001},
        "preprocessing": {"image_size": 14},
        "resources": {"devices_per_node": 2},
    }


def over(job: Job) -> Job | None:
    return job if job.is_over else None


def all_slots_free(thaw: Thaw) -> bool:
    return all(slot["state"] == "free" for node in thaw.nodes() for slot in node["slots"])
