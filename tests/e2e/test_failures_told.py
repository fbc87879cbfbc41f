"""Models that die, raise and hang on the whole stack: how often each is tried, and what a person is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conditions import wait_for
from scans import write_digits
from stacks import Stack, running_stack

from thaw.client import Thaw
from thaw.shapes import Job

pytestmark = pytest.mark.slow

ENDS_WITHIN_S = 240
NETWORKS = '''
import os, signal, time
from thaw_example_models.custom_network import CustomNetwork


class Failing(CustomNetwork):
    """Goes wrong in its fourth forward that learns."""

    head = "fc"
    image_size = (14, 14)

    def __init__(self):
        super().__init__()
        self.n = 0

    def forward(self, pictures):
        scores = super().forward(pictures)
        self.n += self.training and scores.requires_grad
        if self.n == 4:
            self.go_wrong()
        return scores


class Dying(Failing):
    def go_wrong(self):
        with open(os.environ["STARTS_FILE"], "a") as file:
            file.write(f"{os.getpid()}\\n")
        os.kill(os.getpid(), signal.SIGKILL)


class Raising(Failing):
    def go_wrong(self):
        raise ValueError("four is one too many")


class Hanging(Failing):
    def go_wrong(self):
        if os.environ["RANK"] == "1":
            self.wait_for_what_never_comes()

    def wait_for_what_never_comes(self):
        while True:
            time.sleep(0.05)
'''


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a model that dies writes each time that it was started."""
    return tmp_path_factory.mktemp("starts") / "starts.txt"


@pytest.fixture(scope="module")
def failing_stack(tmp_path_factory: pytest.TempPathFactory, starts: Path) -> Iterator[Stack]:
    """A stack with these networks, three tries a job, and 20 s in which a run may stand still."""
    offered = tmp_path_factory.mktemp("offered")
    package = offered / "failing_networks-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: failing_networks\nVersion: 1.0\n")
    lines = [f"{name.lower()} = failing_networks:{name}" for name in ("Dying", "Raising", "Hanging")]
    (package / "entry_points.txt").write_text("\n".join(["[thaw.models]", *lines, ""]))
    (offered / "failing_networks.py").write_text(NETWORKS)
    path = os.pathsep.join([str(offered), *filter(None, [os.environ.get("PYTHONPATH")])])
    with running_stack(
        tmp_path_factory.mktemp("failing"),
        PYTHONPATH=path,
        THAW_TRAINER_ENV=json.dumps({"PYTHONPATH": path, "STARTS_FILE": str(starts)}),
        THAW_TIME_SCALE="0.2",
        THAW_MAX_ATTEMPTS="3",
        THAW_STALL_S="100",
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"), 0, 100)


def submit(thaw: Thaw, digits: Path, model: str, ranks: int = 1) -> Job:
    return thaw.jobs.create(
        {
            "model": model,
            "training_file": thaw.files.upload(digits).id,
            "hyperparameters": {"n_epochs": 3, "batch_size": 20, "learning_rate": 0.001},
            "resources": {"devices_per_node": ranks},
        }
    )


def ended(thaw: Thaw, job: Job) -> Job:
    return wait_for(lambda: over(thaw.jobs.get(job.id)), ENDS_WITHIN_S, "the end of the job")


def over(job: Job) -> Job | None:
    return job if job.is_over else None


def command(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "THAW_URL": stack.url, "THAW_API_KEY": stack.api_key}
    return subprocess.run(
        [sys.executable, "-m", "thaw", *arguments], env=env, capture_output=True, text=True, check=False
    )


def test_a_trainer_that_always_dies_is_started_as_often_as_allowed_and_the_job_says_of_what(
    failing_stack: Stack, digits: Path, starts: Path
) -> None:
    with Thaw(failing_stack.url, failing_stack.api_key) as thaw:
        job = ended(thaw, submit(thaw, digits, "dying"))
        events = list(thaw.jobs.events(job.id))

    assert len(starts.read_text().splitlines()) == 3, "exactly max_attempts starts"
    assert [attempt["outcome"] for attempt in job.raw["attempts"]] == ["lost"] * 3
    assert job.status == "failed"
    assert (job.error["code"], job.error["rank"], job.error["attempt"]) == ("process_killed", 0, 3)
    assert job.error["message"].startswith(
        "3 of 3 tries were lost; the last: rank 0 was killed by SIGKILL, which Thaw did not send"
    )
    assert "batch_size 20" in job.error["message"]
    assert "less memory" in job.error["hint"]
    assert events[-1].data["error"]["code"] == "process_killed"


def test_what_a_model_raises_is_told_once_with_its_own_traceback_in_every_place(
    failing_stack: Stack, digits: Path
) -> None:
    with Thaw(failing_stack.url, failing_stack.api_key) as thaw:
        job = ended(thaw, submit(thaw, digits, "raising", ranks=2))
    watched, shown = (command(failing_stack, name, job.id) for name in ("watch", "show"))

    assert len(job.raw["attempts"]) == 1, "another try would meet it again"
    assert job.error["code"] == "model_raised"
    assert "ValueError: four is one too many (in go_wrong, failing_networks.py:" in job.error["message"]
    assert watched.returncode == 1
    *traceback, last = watched.stderr.splitlines()
    assert last.startswith(f"{job.id} failed (model_raised, rank ")
    assert "try 1): the model raised ValueError: four is one too many" in last
    assert traceback[-1] == "ValueError: four is one too many"
    assert "torch.distributed.elastic" not in "".join(traceback)
    assert "raise ValueError" in shown.stdout
    assert "model_raised in rank" in shown.stdout


def test_a_rank_that_hangs_costs_its_try_and_is_named_with_the_place(
    failing_stack: Stack, digits: Path
) -> None:
    with Thaw(failing_stack.url, failing_stack.api_key) as thaw:
        job = submit(thaw, digits, "hanging", ranks=2)
        first = wait_for(
            lambda: next(iter(attempts_over(thaw.jobs.get(job.id))), None), ENDS_WITHIN_S, "the first end"
        )
        thaw.jobs.cancel(job.id)
        ended(thaw, job)

    assert first["outcome"] == "lost"
    assert (first["error"]["code"], first["error"]["rank"]) == ("no_progress", 1)
    assert "rank 1 stands in wait_for_what_never_comes, failing_networks.py:" in first["error"]["message"]
    assert "wait_for_what_never_comes" in first["error"]["traceback"]
    assert first["ran_s"] > 20


def attempts_over(job: Job) -> list[dict[str, object]]:
    return [attempt for attempt in job.raw["attempts"] if attempt["outcome"]]
