"""Job files and --set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from thaw.errors import UsageError
from thaw.jobfile import apply, load, local_files


@pytest.fixture
def job() -> dict[str, Any]:
    return {"model": "resnet18", "freeze": {"rules": [{"freeze": "conv1"}, {"train": "fc"}]}, "seed": 0}


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("hyperparameters.n_epochs=5", ("hyperparameters", "n_epochs"), 5),
        ("hyperparameters.learning_rate=1e-3", ("hyperparameters", "learning_rate"), 0.001),
        ("freeze.rules.1.train=[layer4, fc]", ("freeze", "rules", 1, "train"), ["layer4", "fc"]),
        ("freeze=backbone", ("freeze",), "backbone"),
        ("validation_file=null", ("validation_file",), None),
        ("weights=none", ("weights",), "none"),
        ("metadata.note=a=b", ("metadata", "note"), "a=b"),
    ],
)
def test_a_change_sets_one_value(job: dict[str, Any], change: str, path: tuple[Any, ...], value: Any) -> None:
    apply(job, change)
    found: Any = job
    for step in path:
        found = found[step]
    assert found == value
    assert job["model"] == "resnet18"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("seed", "write it as path=value"),
        ("=3", "write it as path=value"),
        ("a..b=3", "write it as path=value"),
        ("model.name=x", "model is 'resnet18' and has no fields"),
        ("freeze.rules.2.freeze=x", "'2' is no place in a list of 2"),
        ("freeze.rules.last=x", "'last' is no place"),
        ("freeze=[conv1", "no YAML"),
    ],
)
def test_a_change_that_cannot_be_made_is_explained(job: dict[str, Any], change: str, told: str) -> None:
    with pytest.raises(UsageError, match="--set") as caught:
        apply(job, change)
    assert told in str(caught.value)


def test_paths_in_the_file_are_relative_to_it_and_those_of_a_change_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "here").mkdir()
    job_file = tmp_path / "jobs" / "job.yaml"
    job_file.write_text(
        "model: resnet18\ntraining_file: scans\nvalidation_file: file-123\nweights: DEFAULT\n"
    )
    monkeypatch.chdir(tmp_path / "here")
    assert local_files(load(job_file)) == {"training_file": tmp_path / "jobs" / "scans"}
    changed = load(job_file, ["validation_file=test.zip", "weights=w.safetensors"])
    assert local_files(changed) == {
        "training_file": tmp_path / "jobs" / "scans",
        "validation_file": tmp_path / "here" / "test.zip",
        "weights": tmp_path / "here" / "w.safetensors",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: a\nmodel: b\n", "'model' is given twice"),
        ("- model\n", "a job is a mapping"),
        ("a: [", "no YAML"),
        ("suffix: 2026-01-01", "date is not JSON serializable"),
        ("suffix: 2026-13-01", "month must be in"),
        ("seed: .nan", "finite numbers"),
        ("? [a]\n: b", "no field's name"),
        ("1: b", "put it in quotes"),
        ("a: " + "[" * 3000, "no YAML"),
    ],
)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, text: str, told: str) -> None:
    job_file = tmp_path / "job.yaml"
    job_file.write_text(text)
    with pytest.raises(UsageError, match=told):
        load(job_file)
