"""All that a run reads is on disk where its spec says, checked; damaged checkpoints are passed over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from given_inputs import CAPS, go_on, zipped

from shared.artifacts import ArtifactCorrupt, ArtifactStore, open_store
from shared.db.work import BaseWeights, InputFile, ResumePoint, Work
from shared.domain.events import CheckpointManifest, ManifestEntry, TrainerSpec
from shared.domain.freeze import FreezePlan
from shared.domain.resolved import ResolvedJob
from worker.cache import Cache
from worker.inputs import Inputs
from worker.interruption import LeaseLost


@pytest.fixture
def store(store_url: str) -> ArtifactStore:
    return open_store(store_url)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", 10**9, go_on) as cache:
        yield cache


def resolved(weights: dict[str, Any]) -> ResolvedJob:
    network = {"source": "torchvision", "name": "resnet18", "num_classes": 2, "head": ["fc"]}
    return ResolvedJob.model_validate(
        {
            "task": "classification",
            "base": network,
            "target": network,
            "replace_head": False,
            "weights": weights,
            "class_names": ["cat", "dog"],
            "freeze": {},
            "hyperparameters": {
                "n_epochs": 1,
                "batch_size": 2,
                "learning_rate": 0.1,
                "optimizer": "sgd",
                "momentum": 0.9,
                "weight_decay": 0.0,
                "lr_schedule": "constant",
                "warmup_steps": 0,
                "gradient_clip_norm": None,
                "label_smoothing": 0.0,
                "precision": "fp32",
                "early_stopping_patience": None,
            },
            "preprocessing": {
                "height": 8,
                "width": 8,
                "mean": [0.5] * 3,
                "std": [0.5] * 3,
                "augment": "none",
                "max_unreadable_fraction": 0.0,
            },
            "validation_fraction": None,
            "max_duration_s": 60,
            "seed": 1,
        }
    )


def stored(store: ArtifactStore, content: bytes, format: str = "image_folder", **details: Any) -> InputFile:
    sha256 = hashlib.sha256(content).hexdigest()
    store.put_bytes(f"files/{sha256}", content)
    return InputFile(f"file-{sha256[:6]}", "f", f"files/{sha256}", sha256, len(content), format, details)


def work(training: InputFile, **changes: Any) -> Work:
    fields: dict[str, Any] = {
        "job_id": "ftjob-1",
        "team_id": "team-1",
        "attempt_id": "attempt-1",
        "attempt_number": 1,
        "nodes": 1,
        "devices_per_node": 2,
        "accelerator": "any",
        "resolved": resolved({"kind": "none"}),
        "freeze_plan": FreezePlan(phases=(), aliases={}),
        "training": training,
        "validation": None,
        "weights": None,
        "base_model": None,
        "checkpoints": (),
    }
    return Work(**{**fields, **changes})


@dataclass
class Told:
    """What was said of the checkpoints: steps that were left out, and what the run goes on from."""

    left: list[int] = field(default_factory=list)
    whys: list[str] = field(default_factory=list)
    went_on_from: list[int | None] = field(default_factory=list)

    def left_out(self, point: ResumePoint, why: str) -> None:
        self.left.append(point.step)
        self.whys.append(why)

    def goes_on_from(self, point: ResumePoint | None) -> None:
        self.went_on_from.append(None if point is None else point.step)


def bring(
    work: Work, store: ArtifactStore, cache: Cache, run: Path, interrupted: Callable[[], None] = go_on
) -> tuple[TrainerSpec, Told]:
    told = Told()
    inputs = Inputs(work, store, cache, CAPS, None, interrupted, 10**9)
    return inputs.fetch(run, "cpu", told), told


def test_data_and_weights_are_on_disk_where_the_spec_says(
    store: ArtifactStore, cache: Cache, tmp_path: Path
) -> None:
    training = stored(store, zipped({"cat/1.png": b"c", "dog/1.png": b"d"}))
    table = stored(store, b"PAR1", "parquet", image_column="image", label_column="label")
    model = stored(store, b"tensors", "weights")
    job = work(
        training,
        validation=table,
        resolved=resolved({"kind": "job", "job_id": "ftjob-0"}),
        base_model=BaseWeights("ftjob-0", model.storage_key, model.sha256, model.bytes),
    )
    spec, told = bring(job, store, cache, tmp_path)
    assert (Path(spec.train.path) / "dog" / "1.png").read_bytes() == b"d"
    assert spec.validation is not None
    assert (spec.validation.image_column, spec.validation.label_column) == ("image", "label")
    assert Path(spec.validation.path).read_bytes() == b"PAR1"
    assert spec.weights is not None
    assert Path(spec.weights.path).read_bytes() == b"tensors"
    assert (Path(spec.weights.path).suffix, spec.weights.format) == (".safetensors", "safetensors")
    assert (spec.world_size, spec.device, spec.resume_from, spec.max_duration_s) == (2, "cpu", None, 60)
    assert (told.left, told.went_on_from) == ([], [None])

    for entry in store.list():
        store.delete(entry.key)
    again, _ = bring(job, store, cache, tmp_path)
    assert again == spec, "all of it came from the cache"


def test_other_bytes_than_were_uploaded_are_refused(
    store: ArtifactStore, cache: Cache, tmp_path: Path
) -> None:
    training = stored(store, zipped({"cat/1.png": b"c"}))
    store.put_bytes(training.storage_key, b"rotten")
    with pytest.raises(ArtifactCorrupt, match="6 bytes"):
        bring(work(training), store, cache, tmp_path)


def test_a_lost_lease_ends_the_fetching_and_leaves_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    training = stored(store, zipped({"cat/1.png": b"c"}))
    asked = 0

    def lost() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise LeaseLost("gone")

    with Cache(tmp_path / "cache", 10**9, lost) as cache, pytest.raises(LeaseLost):
        bring(work(training), store, cache, tmp_path, lost)
    assert not list((tmp_path / "cache" / "entries").iterdir())
    assert not list((tmp_path / "cache" / "incoming").iterdir())


def checkpoint(store: ArtifactStore, step: int, content: bytes = b"state") -> ResumePoint:
    prefix = f"checkpoints/step-{step}"
    entry = ManifestEntry(name="state.pt", bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    store.put_bytes(f"{prefix}/state.pt", content)
    manifest = CheckpointManifest(epoch=step, step=step, is_best=False, metrics={}, files=[entry])
    return ResumePoint(f"ftckpt-{step}", step, step, prefix, manifest)


def other_bytes(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    store.put_bytes(f"{point.storage_prefix}/state.pt", b"STATE")
    return point


def truncated(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    store.put_bytes(f"{point.storage_prefix}/state.pt", b"sta")
    return point


def longer(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    store.put_bytes(f"{point.storage_prefix}/state.pt", b"state and more")
    return point


def gone(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    store.delete(f"{point.storage_prefix}/state.pt")
    return point


def without_manifest(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    return replace(point, manifest=None)


def leading_astray(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    assert point.manifest is not None
    entry = point.manifest.files[0].model_copy(update={"name": "../../state.pt"})
    return replace(point, manifest=point.manifest.model_copy(update={"files": [entry]}))


@pytest.mark.parametrize(
    "damage",
    [other_bytes, truncated, longer, gone, without_manifest, leading_astray],
    ids=lambda f: f.__name__,
)
def test_a_damaged_checkpoint_is_passed_over_and_told(
    store: ArtifactStore,
    cache: Cache,
    tmp_path: Path,
    damage: Callable[[ArtifactStore, ResumePoint], ResumePoint],
) -> None:
    training = stored(store, zipped({"cat/1.png": b"c"}))
    newest, good, older = (checkpoint(store, step) for step in (9, 7, 6))
    points = (damage(store, newest), good, older)
    spec, told = bring(work(training, checkpoints=points), store, cache, tmp_path)
    assert spec.resume_from == str(tmp_path / "resume" / "step-000007")
    assert (Path(spec.resume_from) / "state.pt").read_bytes() == b"state"
    assert (
        CheckpointManifest.model_validate_json((Path(spec.resume_from) / "manifest.json").read_bytes())
        == good.manifest
    )
    assert (told.left, told.went_on_from) == ([9], [7])
    assert told.whys[0]
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["step-000007"]


def test_without_a_whole_checkpoint_the_run_starts_anew(
    store: ArtifactStore, cache: Cache, tmp_path: Path
) -> None:
    training, damaged = stored(store, zipped({"cat/1.png": b"c"})), checkpoint(store, 3)
    store.put_bytes(f"{damaged.storage_prefix}/state.pt", b"")
    spec, told = bring(work(training, checkpoints=(damaged,)), store, cache, tmp_path)
    assert (spec.resume_from, told.left, told.went_on_from) == (None, [3], [None])
