"""Pause, resume, change, preempt and drain on the whole stack: what a job keeps, down to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conditions import wait_for
from scans import write_digits
from stacks import Stack

from thaw.client import Thaw
from thaw.shapes import Job

pytestmark = pytest.mark.slow

ENDS_WITHIN_S = 240
STOPS_WITHIN_S = 90


@pytest.fixture
def thaw(stack: Stack) -> Iterator[Thaw]:
    with Thaw(stack.url, stack.api_key) as client:
        yield client


@pytest.fixture(scope="module")
def scans(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of all 1,797 scans on the server, so that an epoch takes a moment."""
    with Thaw(stack.url, stack.api_key) as client:
        return client.files.upload(write_digits(tmp_path_factory.mktemp("digits"), 0, 1797)).id


def submit(thaw: Thaw, scans: str, **hyperparameters: Any) -> str:
    """A job on two ranks, with what must go on where it was: momentum, a falling rate, mirrored pictures."""
    settings = {"n_epochs": 15, "batch_size": 32, "learning_rate": 0.01, "optimizer": "sgd"}
    body = {
        "model": "custom_network",
        "training_file": scans,
        "validation_fraction": 0.2,
        "freeze": ["conv1"],
        "hyperparameters": {**settings, **hyperparameters},
        "preprocessing": {"image_size": 14, "augment": "flip"},
        "resources": {"devices_per_node": 2},
        "seed": 3,
    }
    return thaw.jobs.create(body).id


def command(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"THAW_URL": stack.url, "THAW_API_KEY": stack.api_key}
    return subprocess.run(
        [sys.executable, "-m", "thaw", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def in_phase(thaw: Thaw, job: str, phase: str, within_s: float = STOPS_WITHIN_S) -> Job:
    def look() -> Job | None:
        found = thaw.jobs.get(job)
        assert found.phase == phase or not found.is_over, found.raw["error"]
        return found if found.phase == phase else None

    return wait_for(look, within_s, f"{job} to be {phase}")


def trains(thaw: Thaw, job: str, attempt: int = 1) -> None:
    """Wait until an epoch of this attempt is over."""

    def runs() -> bool:
        found = thaw.jobs.get(job)
        return found.phase == "running" and len(found.raw["attempts"]) == attempt

    def n_epochs() -> int:
        return sum(metric["kind"] == "validation" for metric in thaw.jobs.metrics(job))

    wait_for(runs, ENDS_WITHIN_S, f"attempt {attempt} of {job} to run")
    before = n_epochs()
    wait_for(lambda: n_epochs() > before, ENDS_WITHIN_S, f"{job} to train in its attempt {attempt}")


def sums(thaw: Thaw, job: str) -> dict[str, str]:
    return {a.name: a.sha256 for a in thaw.jobs.artifacts(job) if a.name.endswith(".safetensors")}


def outcomes(job: Job) -> list[str]:
    return [attempt["outcome"] for attempt in job.raw["attempts"]]


def test_a_paused_job_goes_on_to_the_same_bits_as_one_that_never_stopped(
    stack: Stack, thaw: Thaw, scans: str
) -> None:
    whole, stopped = submit(thaw, scans), submit(thaw, scans)
    assert thaw.jobs.wait(whole).status == "succeeded"
    trains(thaw, stopped)
    leaving = thaw.jobs.pause(stopped)
    assert (leaving.phase, leaving.raw["stop_reason"]) == ("stopping", "pause")
    paused = in_phase(thaw, stopped, "paused")
    assert outcomes(paused) == ["stopped"]
    assert all(slot["state"] == "free" for slot in thaw.nodes()[0]["slots"])
    newest = next(iter(thaw.jobs.checkpoints(stopped)))

    assert command(stack, "resume", stopped).returncode == 0
    ended = thaw.jobs.wait(stopped)

    assert (ended.status, outcomes(ended)) == ("succeeded", ["stopped", "succeeded"])
    resumed = [event for event in thaw.jobs.events(stopped) if event.data.get("code") == "resumed"]
    assert [event.data["step"] for event in resumed] == [newest["step_number"]]
    assert sums(thaw, stopped) == sums(thaw, whole)


def test_a_job_is_preempted_drained_paused_changed_and_still_ends_as_it_was_asked_to(
    stack: Stack, thaw: Thaw, scans: str, tmp_path: Path
) -> None:
    job = submit(thaw, scans, n_epochs=400, lr_schedule="constant")
    trains(thaw, job)
    assert "hand its slots to others" in command(stack, "preempt", job).stdout
    in_phase(thaw, job, "queued")
    assert "handed its slots to others" in command(stack, "queue").stdout
    trains(thaw, job, attempt=2)

    assert command(stack, "node", "drain", "node-0").stdout.startswith("node-0 draining, drained since")
    try:
        in_phase(thaw, job, "queued")
        assert thaw.node("node-0")["state"] == "draining"
        assert command(stack, "pause", job).stdout == f"{job} paused\n"
        assert "holds no slots" in command(stack, "show", job).stdout
        n_epochs = next(iter(thaw.jobs.checkpoints(job)))["epoch"] + 2
        too_few = command(stack, "resume", job, "--set", f"hyperparameters.n_epochs={n_epochs - 2}")
        assert (too_few.returncode, "at least" in too_few.stderr) == (3, True)
        changes = (f"hyperparameters.n_epochs={n_epochs}", "hyperparameters.learning_rate=0.002")
        options = [word for change in changes for word in ("--set", change)]
        assert command(stack, "resume", job, *options).stdout == f"{job} queued\n"
    finally:
        assert command(stack, "node", "undrain", "node-0").returncode == 0

    ended = thaw.jobs.wait(job)
    assert ended.status == "succeeded", ended.why_failed
    assert outcomes(ended) == ["stopped", "stopped", "succeeded"]
    artifact = next(a for a in thaw.jobs.artifacts(job) if a.name == "result.json")
    result = json.loads(thaw.jobs.download(job, artifact, tmp_path).read_text())
    told = {change["field"]: (change["old"], change["new"]) for change in result["changes"]}
    assert told == {
        "hyperparameters.n_epochs": (400, n_epochs),
        "hyperparameters.learning_rate": (0.01, 0.002),
    }
    assert len(result["epochs"]) == n_epochs
    assert (result["epochs"][0]["learning_rate"], result["epochs"][-1]["learning_rate"]) == (0.01, 0.002)
    assert "n_epochs 400 ->" in command(stack, "show", job).stdout
    why = [event.data.get("stop_reason") for event in thaw.jobs.events(job) if event.type == "state"]
    assert [reason for reason in why if reason] == ["preempt", "drain"]
