"""Activations of a training job: of the model that it keeps, and without a trace in anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from extractor_runs import ROOM, Extracted, extract_here, extractor_spec
from safetensors.torch import load_file
from trainer_runs import MakeSpec, Ran, RunHere

from shared.domain.events import TrainerSpec

# BatchNorm, dropout, momentum, mirrored pictures: whatever could be moved by a forward too many.
MODEL = "mobilenet_v3_small"
WANTED = {"modules": ["features.0", "features.12.1", "avgpool", "classifier.3"], "max_bytes": ROOM}
SETTINGS: dict[str, Any] = {
    "freeze": ["features.0"],
    "hyperparameters": {"n_epochs": 2, "batch_size": 20},
    "preprocessing": {"augment": "flip"},
}


def assert_the_same_training(one: Ran, other: Ran) -> None:
    """All that training made and measured, to the last bit."""
    for name in ("model.safetensors", "trainable.safetensors"):
        first, second = load_file(one.out / name), load_file(other.out / name)
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
    left_out = {"spec", "seconds", "activations"}
    assert one.result.model_dump(exclude=left_out) == other.result.model_dump(exclude=left_out)
    assert (one.out / "metrics.jsonl").read_text() == (other.out / "metrics.jsonl").read_text()
    # Optimizer, scheduler, random generators of all ranks, position: whatever a run would go on from.
    assert _last_state(one) == _last_state(other)


def _last_state(ran: Ran) -> Any:
    folder = ran.out / ran.of_type("checkpoint")[-1].folder
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state.pop("seconds")
    return _tensors(state)


def _tensors(value: Any) -> Any:
    """The same, with tensors as bytes, so that they can be compared."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _tensors(inner) for key, inner in value.items()}
    return [_tensors(inner) for inner in value] if isinstance(value, list | tuple) else value


def test_a_run_that_captures_trains_to_the_same_bits(
    make_spec: MakeSpec, run_here: RunHere, held_out: Path
) -> None:
    validation = {"path": str(held_out), "format": "image_folder"}
    plain = run_here(make_spec(MODEL, validation=validation, **SETTINGS), "plain")
    captured = run_here(make_spec(MODEL, validation=validation, capture=WANTED, **SETTINGS), "captured")

    assert captured.outcome.outcome == "succeeded", captured.errors
    assert_the_same_training(plain, captured)
    assert plain.result.activations is None
    saved = captured.result.activations
    assert saved is not None
    assert (saved.n_samples, list(saved.modules)) == (37, WANTED["modules"])


@pytest.mark.slow
def test_two_ranks_that_capture_train_to_the_same_bits_and_share_the_samples(
    make_spec: MakeSpec, run_ranks: RunHere
) -> None:
    settings = {**SETTINGS, "validation_fraction": 0.2, "world_size": 2}
    plain = run_ranks(make_spec(MODEL, **settings), "plain")
    captured = run_ranks(make_spec(MODEL, capture=WANTED, **settings), "captured")

    assert (plain.exit_code, captured.exit_code) == (0, 0), captured.output
    assert_the_same_training(plain, captured)
    ran = Extracted(captured.out)
    indices = [sample["sample_index"] for sample in ran.samples]
    assert indices == sorted(set(indices))
    assert len(indices) == captured.result.n_validation_samples == ran.index.n_samples


def _trained(make_spec: MakeSpec, held_out: Path, *, keep: str = "best", **changes: Any) -> TrainerSpec:
    """The rate is so high that the first epochs are not beaten."""
    rate = {"learning_rate": 0.1, "lr_schedule": "constant", "optimizer": "adamw"}
    return make_spec(
        validation={"path": str(held_out), "format": "image_folder"},
        hyperparameters={"n_epochs": 4, "batch_size": 8, "keep": keep, **rate},
        capture={"modules": ["conv1", "fc"], "max_bytes": ROOM},
        **changes,
    )


def _extracted_again(trained: Ran, held_out: Path, out: Path, batch_size: int) -> Extracted:
    """The same modules of the model that a run has left, by an extraction of its own."""
    model = {"path": str(trained.out / "model.safetensors"), "format": "safetensors", "sha256": "0"}
    weights = {**model, "source": {"kind": "none"}}
    return extract_here(
        extractor_spec(held_out, ["conv1", "fc"], batch_size=batch_size, weights=weights), out
    )


@pytest.mark.parametrize("keep", ["best", pytest.param("last", marks=pytest.mark.slow)])
def test_what_is_captured_is_what_the_kept_model_gives(
    make_spec: MakeSpec, run_here: RunHere, held_out: Path, tmp_path: Path, keep: str
) -> None:
    trained = run_here(_trained(make_spec, held_out, keep=keep), "trained")
    captured = Extracted(trained.out)
    extracted = _extracted_again(trained, held_out, tmp_path / "again", batch_size=16)

    assert not extracted.errors
    assert captured.index.network_sha256 == extracted.index.network_sha256
    assert captured.files == extracted.files


@pytest.mark.slow
def test_every_rank_captures_the_best_model_of_which_only_one_has_the_tensors(
    make_spec: MakeSpec, run_ranks: RunHere, held_out: Path, tmp_path: Path
) -> None:
    trained = run_ranks(_trained(make_spec, held_out, world_size=2), "trained")
    assert trained.exit_code == 0, trained.output
    assert trained.result.kept_epoch < 3, "the last epoch's model is every rank's own"
    extracted = _extracted_again(trained, held_out, tmp_path / "again", batch_size=8)

    assert Extracted(trained.out).files == extracted.files


def test_a_module_that_cannot_be_captured_ends_the_run_before_it_trains(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    wanted = {"modules": ["conv1", "conv9"], "max_bytes": ROOM}
    ran = run_here(make_spec(validation_fraction=0.2, capture=wanted))

    assert ran.error["code"] == "unknown_module"
    assert "'conv9'" in ran.error["message"]
    assert "conv1" in ran.error["message"]
    assert not ran.of_type("train")
