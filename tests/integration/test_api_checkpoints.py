"""A job's checkpoints over HTTP, through the client and on the command line: listed, shown, brought here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_house import JOBS, ApiHouse, api_on, refused
from api_server import ROOT, served
from sqlalchemy import func, update
from stored_checkpoints import STATE, store_checkpoint

from shared.db.engine import transaction
from shared.db.models import Checkpoint
from shared.domain.events import CheckpointManifest
from shared.settings import Settings
from worker.training.checkpoint_folder import read_manifest


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def job_with_checkpoints(api: ApiHouse, *steps: int) -> str:
    """A job whose one attempt has stored whole checkpoints, the first of which was the best."""
    job_id = str(api.job(training_file=api.data_set("a", "b"))["id"])
    api.add_artifact(job_id, "model.json", b"{}")
    for step in steps:
        store_checkpoint(api, job_id, f"ftckpt-{step}", step, is_best=step == steps[0])
    return job_id


def mark(api: ApiHouse, step: int, column: str) -> None:
    with transaction(api.engine) as session:
        session.execute(update(Checkpoint).where(Checkpoint.step == step).values({column: func.now()}))


def test_a_list_says_which_is_the_newest_the_best_and_damaged(api: ApiHouse) -> None:
    job = job_with_checkpoints(api, 1, 2, 3, 4)
    mark(api, 4, "damaged_at")
    mark(api, 2, "dropped_at")

    found = api.client.get(f"{JOBS}/{job}/checkpoints").json()["data"]

    told = [(c["step_number"], c["is_newest"], c["is_best"], c["is_damaged"]) for c in found]
    assert told == [(4, False, False, True), (3, True, False, False), (1, False, True, False)]
    assert {key: found[1][key] for key in ("epoch", "attempt", "bytes", "metrics")} == {
        "epoch": 3,
        "attempt": 1,
        "bytes": len(STATE),
        "metrics": {"step": 3.0, "validation_loss": 1 / 3},
    }
    behind_the_dropped = api.client.get(f"{JOBS}/{job}/checkpoints", params={"after": "ftckpt-2"}).json()
    assert [c["step_number"] for c in behind_the_dropped["data"]] == [1], (
        "a page goes on behind one that went"
    )


def test_a_checkpoint_is_fetched_file_by_file(api: ApiHouse) -> None:
    job = job_with_checkpoints(api, 1, 2)
    path = f"{JOBS}/{job}/checkpoints/ftckpt-2"

    shown = api.client.get(path).json()
    assert [(file["name"], file["bytes"]) for file in shown["files"]] == [("state.pt", len(STATE))]
    assert api.client.get(f"{path}/files/state.pt").content == STATE
    part = api.client.get(f"{path}/files/state.pt", headers={"Range": "bytes=-10"})
    assert (part.status_code, part.content) == (206, STATE[-10:])
    manifest = CheckpointManifest.model_validate_json(api.client.get(f"{path}/files/manifest.json").content)
    assert manifest.step == 2


def test_what_is_not_there_is_told_in_words(api: ApiHouse) -> None:
    job = job_with_checkpoints(api, 1, 2)
    mark(api, 1, "dropped_at")
    path = f"{JOBS}/{job}/checkpoints"

    refused(api.client.get(f"{path}/ftckpt-9"), 404, None, "no checkpoint 'ftckpt-9'")
    refused(api.client.get(f"{path}/ftckpt-1"), 404, None, "dropped", "save_total_limit")
    refused(api.client.get(f"{path}/ftckpt-2/files/x.pt"), 404, None, "state.pt, manifest.json")
    refused(api.client.get(f"{path}/ftckpt-2", headers=api.other_team()), 404, None)
    refused(api.client.get(f"{path}/ftckpt-2/files/state.pt", headers=api.other_team()), 404, None)


def test_a_job_does_not_start_from_a_checkpoint(api: ApiHouse) -> None:
    job = job_with_checkpoints(api, 2)
    (found,) = api.client.get(f"{JOBS}/{job}/checkpoints").json()["data"]
    answer = api.submit(training_file=api.data_set("a", "b"), model=found["fine_tuned_model_checkpoint"])
    refused(answer, 422, "model", "names a checkpoint", repr(job))


def test_how_many_are_kept_is_a_hyperparameter(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    assert api.job(training_file=file)["hyperparameters"]["save_total_limit"] == 3
    asked = api.job(training_file=file, hyperparameters={"save_total_limit": 7})
    assert asked["hyperparameters"]["save_total_limit"] == 7
    answer = api.submit(training_file=file, hyperparameters={"save_total_limit": 0})
    refused(answer, 422, "hyperparameters.save_total_limit")


def test_the_command_lists_them_and_brings_one_that_the_engine_can_read(
    settings: Settings, tmp_path: Path
) -> None:
    with api_on(settings) as api, served(settings, tmp_path / "api.log") as address:
        job = job_with_checkpoints(api, 1, 2, 3)
        key = api.client.headers["Authorization"].removeprefix("Bearer ")

        def thaw(*arguments: str, exit_code: int = 0) -> str:
            """What the command prints: its result, or its complaint."""
            env = {**os.environ, "THAW_URL": address, "THAW_API_KEY": key}
            command = [sys.executable, "-m", "thaw", *arguments]
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == exit_code, done.stderr
            return done.stderr if exit_code else done.stdout

        lines = thaw("checkpoints", job).splitlines()
        assert lines[0].split() == ["step", "epochs", "try", "size", "validation", "loss", "created", "id"]
        assert [line.split()[:4] for line in lines[1:]] == [
            ["3", "3", "1", "newest"],
            ["2", "2", "1", "2.0"],
            ["1", "1", "1", "best"],
        ]
        folder = tmp_path / "here" / "step-000001"
        where = ("--to", str(tmp_path / "here"))
        assert thaw("download", job, "--checkpoint", "best", *where).strip() == str(folder)
        assert read_manifest(folder).step == 1
        assert (folder / "state.pt").read_bytes() == STATE
        assert "those of the steps 3, 2, 1" in thaw("download", job, "--checkpoint", "9", exit_code=2)
