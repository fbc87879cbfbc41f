"""From pictures to features on a real stack: extracted, captured, downloaded, and put to use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stacks import Stack
from test_cli import ROOT, thaw

from thaw.activations import read_activations

pytestmark = pytest.mark.slow

JOB = """\
model: custom_network
weights: none
training_file: {folder}
validation_fraction: 0.25
freeze: [conv1]
hyperparameters: {{n_epochs: 2, batch_size: 16, learning_rate: 2e-3}}
preprocessing: {{image_size: 14, normalize: none}}
resources: {{devices_per_node: 2}}
capture: [conv2, fc]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(stack: Stack, home: Path, digits_folder: Path) -> str:
    """A job on both slots that captures activations of its validation samples."""
    job_file = home / "job.yaml"
    job_file.write_text(JOB.format(folder=digits_folder))
    done = thaw(stack, home, "submit", job_file, "--watch", limit_s=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def extracted(stack: Stack, home: Path, trained: str, digits_folder: Path) -> str:
    """The example's job, on the model that was trained and all scans."""
    example = (ROOT / "examples/jobs/features.yaml").read_text()
    job_file = home / "features.yaml"
    job_file.write_text(example.replace("../../.thaw/digits/digits", str(digits_folder)))
    changes = ("model=" + trained, "weights=null", "modules=[conv2, fc]", "pool=none", "preprocessing={}")
    options = [word for change in changes for word in ("--set", change)]
    done = thaw(stack, home, "extract", job_file, "--watch", *options, limit_s=240)
    assert done.returncode == 0, done.stderr
    assert "240 of 240 samples" in done.stderr
    job = done.stdout.strip()
    assert done.stdout == f"{job}\n"
    return job


def test_features_of_a_jobs_model_are_what_the_job_captured(
    stack: Stack, home: Path, trained: str, extracted: str
) -> None:
    for name in (extracted, trained):
        fetched = thaw(stack, home, "download", name, "--to", home / name)
        assert fetched.returncode == 0, fetched.stderr
    whole, captured = read_activations(home / extracted), read_activations(home / trained)
    assert whole["fc"].shape == (240, 10)
    result = json.loads((home / trained / "result.json").read_text())
    assert len(captured.samples) == result["n_validation_samples"] > 50
    place = {sample.name: row for row, sample in enumerate(whole.samples)}
    rows = [place[sample.name] for sample in captured.samples]
    assert [whole.samples[row] for row in rows] == captured.samples
    for module in ("conv2", "fc"):
        np.testing.assert_allclose(captured[module], whole[module][rows], atol=1e-4)


def test_jobs_of_each_kind_are_seen_where_their_id_belongs(
    stack: Stack, home: Path, trained: str, extracted: str
) -> None:
    def listed(*options: str) -> set[str]:
        return {line.split()[0] for line in thaw(stack, home, "list", *options).stdout.splitlines()}

    assert listed("--kind", "feature_extraction") == {"id", extracted}
    assert trained in listed()
    assert extracted not in listed()
    shown = thaw(stack, home, "show", extracted).stdout
    assert "network        unchanged" in shown
    assert "[32, 10, 10] for each sample" in shown
    assert "-- extracting" in thaw(stack, home, "logs", extracted).stdout
    refused = thaw(stack, home, "predict", extracted, ROOT / "README.md")
    assert refused.returncode == 2
    assert "has no model" in refused.stderr


def test_the_probe_runs_as_it_stands(stack: Stack, home: Path) -> None:
    env = {**os.environ, "THAW_URL": stack.url, "THAW_API_KEY": stack.api_key, "XDG_CONFIG_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/linear_probe.py")],
        cwd=home,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [(layer, int(features)) for layer, features, _ in lines] == [
        ("maxpool", 64),
        ("layer1", 64),
        ("layer2", 128),
        ("layer3", 256),
        ("layer4", 512),
    ]
    assert all(float(accuracy.rstrip("%")) > 60 for _, _, accuracy in lines), done.stdout
