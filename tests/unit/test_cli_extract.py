"""Feature extractions from the command line: the same commands, told by the id which kind of job is meant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Answer, Script, scripted, told
from test_cli_exits import thaw

from thaw.figures import Figures
from thaw.shapes import Job

PATH = "/v1/feature_extraction/jobs"
JOB: dict[str, Any] = {
    "id": "fxjob-1",
    "model": "resnet18",
    "status": "succeeded",
    "phase": "succeeded",
    "created_at": 0,
    "finished_at": 9,
    "modules": [{"path": "layer4", "shape": [512]}, {"path": "fc", "shape": None}],
    "output": "parquet",
    "pool": "mean",
    "dtype": "float16",
    "estimated_bytes": 1_000_000,
    "progress": {"phase": "saving", "extraction": {"n_done": 1797, "n_samples": 1797, "samples_per_s": 99.0}},
    "timings": {"queued": 1.0, "starting": None, "extracting": 2.0},
    "result": {
        "activations": {"n_samples": 1797, "n_bytes": 3_680_000, "files": [{}, {}, {}]},
        "network_proof": {"before": "a", "after": "a"},
    },
}
EMPTY = {"object": "list", "data": [], "has_more": False}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


def test_extract_sends_the_job_and_prints_its_id_alone(server: Script, tmp_path: Path) -> None:
    job_file = tmp_path / "features.yaml"
    job_file.write_text("model: resnet18\ninput_file: file-1\nmodules: [layer4]\n")
    server.on(f"POST {PATH}", told({**JOB, "status": "queued"}))

    done = thaw(server.url, "extract", str(job_file), "--set", "pool=mean", home=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "fxjob-1\n", "")
    sent = json.loads(server.requests[-1].body)
    assert sent == {"model": "resnet18", "input_file": "file-1", "modules": ["layer4"], "pool": "mean"}


def test_data_that_a_job_names_here_is_looked_for_here(server: Script, tmp_path: Path) -> None:
    job_file = tmp_path / "features.yaml"
    job_file.write_text("model: resnet18\ninput_file: digits\nmodules: [layer4]\n")
    done = thaw(server.url, "extract", str(job_file), home=tmp_path)
    assert done.returncode == 2
    assert str(tmp_path / "digits") in done.stderr


def test_show_tells_what_was_saved_of_what(server: Script, tmp_path: Path) -> None:
    server.on(f"GET {PATH}/fxjob-1", told(JOB))
    shown = thaw(server.url, "show", "fxjob-1", home=tmp_path)

    assert shown.returncode == 0, shown.stderr
    for words in (
        "layer4         [512] for each sample",
        "fc             known once it runs",
        "parquet, pooled: mean, float16",
        "1,797 samples, 3.7 MB in 3 files",
        "network        unchanged",
        "extracting 2s",
    ):
        assert words in shown.stdout
    server.on(f"GET {PATH}/fxjob-1", told({**JOB, "result": None}))
    assert "estimated      1.0 MB" in thaw(server.url, "show", "fxjob-1", home=tmp_path).stdout


def test_the_id_says_where_a_job_is_asked_for(server: Script, tmp_path: Path) -> None:
    server.on(f"POST {PATH}/fxjob-1/cancel", told({**JOB, "phase": "stopping"}))
    server.on(f"GET {PATH}/fxjob-1/logs", Answer(b"-- extracting\n", type="text/plain"))
    server.on(f"GET {PATH}", told({**EMPTY, "data": [JOB]}))
    server.on("GET /v1/fine_tuning/jobs", told(EMPTY))

    assert thaw(server.url, "cancel", "fxjob-1", home=tmp_path).stdout == "fxjob-1 stopping\n"
    assert thaw(server.url, "logs", "fxjob-1", home=tmp_path).stdout == "-- extracting\n"
    listed = thaw(server.url, "list", "--kind", "feature_extraction", home=tmp_path)
    assert listed.stdout.splitlines()[1].split()[:4] == ["fxjob-1", "resnet18", "succeeded", "1,797"]
    assert "fxjob-1" not in thaw(server.url, "list", home=tmp_path).stdout
    refused = thaw(server.url, "metrics", "fxjob-1", home=tmp_path)
    assert refused.returncode == 2
    assert "measures nothing" in refused.stderr


def test_shards_alone_are_no_result_to_download(server: Script, tmp_path: Path) -> None:
    shard = {"name": "activations/shard-00000.safetensors", "bytes": 1, "sha256": "0"}
    server.on(f"GET {PATH}/fxjob-1/artifacts", told({**EMPTY, "data": [shard]}))
    server.on(f"GET {PATH}/fxjob-1", told({**JOB, "status": "running", "phase": "running"}))

    done = thaw(server.url, "download", "fxjob-1", "--to", str(tmp_path / "out"), home=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert "1 shards so far" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_figures_of_a_running_extraction() -> None:
    extraction = {"n_done": 448, "n_samples": 1797, "samples_per_s": 120.4, "eta_s": 11.2}
    running = {**JOB, "phase": "running", "progress": {"phase": "extracting", "extraction": extraction}}
    figures = Figures.of(Job.read(running))

    assert figures.parts() == ["extracting", "448 of 1,797 samples", "120 a second", "11s left"]
    assert figures.has_begun
    assert figures.done == pytest.approx(0.2493, abs=1e-4)
    trained = {"epoch": 1, "n_epochs": 2, "step": 10, "total_steps": 20, "loss": 0.5, "eta_s": 9.0}
    capturing = {**running, "progress": {**running["progress"], "train": trained}}
    assert Figures.of(Job.read(capturing)).parts()[:3] == ["extracting", "epoch 2/2", "step 10/20"]
