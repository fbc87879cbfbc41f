"""The `thaw` command on a real stack: from a folder of pictures to a model that names a picture's class."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from stacks import Stack

ROOT = Path(__file__).resolve().parents[2]
JOB = """\
model: custom_network
weights: none
training_file: digits.zip
validation_fraction: 0.25
freeze: {rules: [{freeze: ["name:conv1", "name:conv2"]}]}
hyperparameters: {n_epochs: 1, batch_size: 16, learning_rate: 2e-3}
preprocessing: {image_size: 14}
"""


def thaw(
    stack: Stack, home: Path, *arguments: str | Path, limit_s: float = 60
) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "THAW_URL": stack.url,
        "THAW_API_KEY": stack.api_key,
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
    }
    command = [sys.executable, "-m", "thaw", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=limit_s, check=False
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def job_file(home: Path, digits_folder: Path) -> Path:
    path = home / "job.yaml"
    path.write_text(JOB.replace("digits.zip", str(digits_folder)))
    return path


@pytest.fixture(scope="module")
def done(stack: Stack, home: Path, job_file: Path) -> subprocess.CompletedProcess[str]:
    """The submission of a job that was watched to its end."""
    change = "hyperparameters.n_epochs=5"
    return thaw(stack, home, "submit", job_file, "--watch", "--set", change, limit_s=180)


@pytest.fixture
def job_id(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.strip()


def test_a_watched_job_shows_its_figures_and_leaves_its_id_on_standard_output(
    done: subprocess.CompletedProcess[str],
) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("ftjob-")
    assert "uploaded as file-" in done.stderr
    for figure in ("epoch 5/5", "step ", "loss ", "accuracy ", "Epoch 5: held-out accuracy"):
        assert figure in done.stderr


def test_a_plan_names_what_is_frozen_and_stores_nothing(stack: Stack, home: Path, job_file: Path) -> None:
    shown = thaw(stack, home, "plan", job_file)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0] == "custom_network: 32,010 of 37,098 parameters train (86.28%), 5,088 are frozen"
    assert [line.split()[1:3] for line in lines[1:4]] == [
        ["frozen", "conv1"],
        ["frozen", "conv2"],
        ["TRAINS", "fc"],
    ]


def test_what_a_job_was_can_be_read(stack: Stack, home: Path, job_id: str) -> None:
    shown = thaw(stack, home, "show", job_id).stdout
    assert "succeeded" in shown
    assert "unchanged: 4 parameters" in shown
    listed = json.loads(thaw(stack, home, "list", "--json").stdout)
    assert job_id in [job["id"] for job in listed]
    lines = json.loads(thaw(stack, home, "metrics", job_id, "--json").stdout)
    assert [line["epoch"] for line in lines if line["kind"] == "validation"] == [0, 1, 2, 3, 4]
    assert "the frozen part is bit-identical" in thaw(stack, home, "logs", job_id, "-f").stdout
    again = thaw(stack, home, "watch", job_id, "--json")
    assert again.returncode == 0
    numbers = [json.loads(line)["seq"] for line in again.stdout.splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_model_is_downloaded_whole_and_names_classes_as_well_as_it_did_in_training(
    stack: Stack, home: Path, job_id: str, digits_folder: Path
) -> None:
    to = home / "result"
    assert thaw(stack, home, "download", job_id, "--to", to).stdout == f"{to}\n"
    with safe_open(to / "model.safetensors", "pt") as model:
        assert set(model.keys()) == {f"{m}.{p}" for m in ("conv1", "conv2", "fc") for p in ("weight", "bias")}
    with safe_open(to / "trainable.safetensors", "pt") as trained:
        assert set(trained.keys()) == {"fc.weight", "fc.bias"}
    result = json.loads((to / "result.json").read_text())
    assert result["frozen_proof"]["before"] == result["frozen_proof"]["after"]

    scans = sorted(digits_folder.rglob("*.png"))
    found = thaw(stack, home, "predict", job_id, *scans, "--json")
    assert found.returncode == 0, found.stderr
    answers = json.loads(found.stdout)
    right = [answer["class"] == Path(answer["image"]).parent.name for answer in answers]
    assert sum(right) / len(right) >= result["evaluation"]["accuracy"] - 0.02
    assert all(0.1 <= answer["probability"] <= 1 for answer in answers)


@pytest.mark.slow
def test_models_are_rebuilt_from_the_seed_from_a_jobs_model_and_from_an_uploaded_one(
    stack: Stack, home: Path, job_id: str, job_file: Path
) -> None:
    whole = home / "whole"
    assert thaw(stack, home, "download", job_id, "--to", whole).returncode == 0
    base = whole / "model.safetensors"

    jobs = [job_id]
    for begin in ((f"model={job_id}", "weights=null"), (f"weights={base}",)):
        changes = [word for change in (*begin, "freeze=backbone") for word in ("--set", change)]
        submitted = thaw(stack, home, "submit", job_file, "--watch", *changes, limit_s=180)
        assert submitted.returncode == 0, submitted.stderr
        jobs.append(submitted.stdout.strip())
    for job in jobs:
        plain, full = home / "plain" / job, home / "full" / job
        assert thaw(stack, home, "download", job, "--to", plain).returncode == 0
        rebuilt = thaw(stack, home, "download", job, "--full", "--to", full)
        assert rebuilt.returncode == 0, rebuilt.stderr
        assert "model.safetensors" in rebuilt.stderr.splitlines()[-1]
        assert "rebuilt bit for bit" in rebuilt.stderr.splitlines()[-1]
        assert {path.name: path.read_bytes() for path in full.iterdir()} == {
            path.name: path.read_bytes() for path in plain.iterdir()
        }
    # The uploaded file has the bytes of the job's model: they were fetched once.
    assert [path.read_bytes() for path in (home / "cache" / "thaw" / "bases").iterdir()] == [
        base.read_bytes()
    ]
    assert "here already" in rebuilt.stderr

    card = json.loads((home / "full" / jobs[2] / "model.json").read_text())
    (home / "cache" / "thaw" / "bases" / f"{card['base']['sha256']}.safetensors").unlink()
    assert thaw(stack, home, "files", "rm", card["base"]["weights"]["file_id"]).returncode == 0
    gone = thaw(stack, home, "download", jobs[2], "--full", "--to", home / "gone")
    assert gone.returncode == 3
    assert "is gone from the server. Name a copy with --base" in gone.stderr
    own = thaw(stack, home, "download", jobs[2], "--full", "--base", base, "--to", home / "gone")
    assert own.returncode == 0, own.stderr


def test_the_same_data_is_sent_once(stack: Stack, home: Path, done: object, digits_folder: Path) -> None:
    put = thaw(stack, home, "files", "put", digits_folder)
    assert "is there already as" in put.stderr
    files = json.loads(thaw(stack, home, "files", "list", "--json").stdout)
    same = [file for file in files if file["id"] == put.stdout.strip()]
    assert len(same) == 1
    assert [file["sha256"] for file in files].count(same[0]["sha256"]) == 1


def test_a_job_that_cannot_be_is_refused_with_its_field(stack: Stack, home: Path, job_file: Path) -> None:
    refused = thaw(stack, home, "submit", job_file, "--set", 'freeze=["conv3"]')
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "conv3" in refused.stderr
    assert "freeze" in refused.stderr.splitlines()[-1]


def test_a_running_job_can_be_cancelled_and_its_watcher_is_told(
    stack: Stack, home: Path, job_file: Path
) -> None:
    submitted = thaw(stack, home, "submit", job_file, "--set", "hyperparameters.n_epochs=5000")
    job_id = submitted.stdout.strip()
    assert thaw(stack, home, "cancel", job_id).returncode == 0
    watched = thaw(stack, home, "watch", job_id, limit_s=120)
    assert watched.returncode == 1
    assert watched.stderr == f"{job_id} cancelled\n"


def test_models_and_their_blocks_are_shown(stack: Stack, home: Path) -> None:
    shown = thaw(stack, home, "models", "show", "nested_network").stdout
    assert "4 blocks: encoder.0 encoder.3 decoder.0 decoder.2" in shown
    assert "@head" in shown
    listed = json.loads(thaw(stack, home, "models", "--json").stdout)
    assert {"id": "fcn_resnet50", "task": "segmentation"}.items() <= {model["id"]: model for model in listed}[
        "fcn_resnet50"
    ].items()


def test_nodes_and_their_slots_are_listed(stack: Stack, home: Path) -> None:
    nodes = json.loads(thaw(stack, home, "node", "list", "--json").stdout)
    assert [(node["id"], len(node["slots"])) for node in nodes] == [("node-0", 2)]
