"""The ways of freezing, each trained for real: what is frozen does not move by a bit, and the ranks agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from trainer_runs import MakeSpec, RunHere

from worker.training import freezing
from worker.training.models import build


def saved(out: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(out / name)


def weights_of(model: nn.Module, path: Path) -> dict[str, Any]:
    """A base: the model's state as a file on the node."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return {"path": str(path), "format": "safetensors", "sha256": "0" * 64}


def test_a_frozen_backbone_on_two_ranks_stays_the_base_bit_for_bit(
    make_spec: MakeSpec, run_ranks: RunHere, held_out: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    base = build("resnet18", "torchvision", 10)
    weights = weights_of(base, tmp_path / "base.safetensors")
    spec = make_spec(
        "resnet18",
        freeze="backbone",
        base_classes=10,
        replace_head=True,
        world_size=2,
        weights=weights,
        validation={"path": str(held_out), "format": "image_folder"},
    )

    ran = run_ranks(spec)

    assert ran.exit_code == 0, ran.output
    before, after = base.state_dict(), saved(ran.out)
    assert [n for n in before if not n.startswith("fc.") and not torch.equal(before[n], after[n])] == []
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    result = ran.result
    assert result.frozen_proof.unchanged
    assert (result.frozen_proof.n_parameters, result.frozen_proof.n_buffers) == (60, 60)
    assert result.frozen_proof.before == result.frozen_proof.after
    assert result.ranks.equal
    assert result.ranks.world_size == 2
    # 37 samples on two ranks: none is left out, none counts twice.
    assert result.evaluation is not None
    assert result.evaluation.n_samples == 37
    assert sum(map(sum, result.evaluation.confusion_matrix)) == 37
    assert set(saved(ran.out, "trainable.safetensors")) == {"fc.weight", "fc.bias"}
    assert ran.outcome.outcome == "succeeded"


def test_what_was_trained_and_the_base_make_the_model(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    base = build("custom_network", "registered")
    weights = weights_of(base, tmp_path / "base.safetensors")

    ran = run_here(make_spec(freeze=["name:conv1"], weights=weights))

    together = {**base.state_dict(), **saved(ran.out, "trainable.safetensors")}
    whole = saved(ran.out)
    assert together.keys() == whole.keys()
    assert all(torch.equal(together[name], whole[name]) for name in whole)
    fresh = build("custom_network", "registered")
    fresh.load_state_dict(whole, strict=True)


def test_parts_frozen_by_name_stay_and_the_rest_learns(make_spec: MakeSpec, run_here: RunHere) -> None:
    spec = make_spec(freeze=["name:conv1", "name:conv2"], hyperparameters={"n_epochs": 3})

    ran = run_here(spec)

    assert ran.result.frozen_proof.n_parameters == 4
    assert ran.result.n_frozen == 3 * 16 * 9 + 16 + 16 * 32 * 9 + 32
    losses = [epoch["train_loss"] for epoch in ran.result.epochs]
    assert losses[-1] < losses[0] / 2


def test_a_frozen_submodule_on_two_ranks_and_a_decoder_that_takes_no_part(
    make_spec: MakeSpec, run_ranks: RunHere
) -> None:
    ran = run_ranks(make_spec("nested_network", freeze=["encoder"], world_size=2))

    assert ran.exit_code == 0, ran.output
    decoder = ["decoder.0.weight", "decoder.0.bias", "decoder.2.weight", "decoder.2.bias"]
    found = ran.result.find_unused_parameters
    assert found.value is True
    assert found.unused == decoder
    assert ran.note("find_unused_parameters").data["unused"] == decoder
    assert ran.result.ranks.equal


def test_forcing_find_unused_parameters_off_fails_before_training_where_the_probe_finds_some(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    freeze = {"rules": [{"freeze": "encoder"}], "find_unused_parameters": False}

    ran = run_here(make_spec("nested_network", freeze=freeze))

    assert ran.error["code"] == "unused_parameters"
    assert "decoder.0.weight" in ran.error["message"]
    assert not ran.of_type("train")


def test_training_only_what_takes_no_part_is_refused(make_spec: MakeSpec, run_here: RunHere) -> None:
    ran = run_here(make_spec("nested_network", freeze=["encoder", "classifier"]))

    assert ran.error["code"] == "nothing_learns"


def test_one_moved_batch_norm_statistic_fails_the_run(
    make_spec: MakeSpec, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaves a single frozen BatchNorm in training mode, as other trainers leave all of them."""
    put_modes = freezing.set_training_modes

    def all_but_one(model: nn.Module, phase: Any) -> None:
        put_modes(model, phase)
        model.get_submodule("layer4.1.bn2").train()

    monkeypatch.setattr("worker.training.stepping.set_training_modes", all_but_one)

    ran = run_here(make_spec("resnet18", freeze="backbone", hyperparameters={"batch_size": 50}))

    assert ran.error["code"] == "frozen_part_moved"
    assert "layer4.1.bn2.running_mean" in ran.error["message"]
    assert not (ran.out / "result.json").exists()


def test_statistics_that_move_by_request_are_left_out_of_the_proof_and_named(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    freeze = {"rules": [{"freeze": "**"}, {"train": "@head"}], "batch_norm": "train"}

    ran = run_here(make_spec("resnet18", freeze=freeze, hyperparameters={"batch_size": 50}))

    assert ran.result.frozen_proof.n_buffers == 0
    assert "layer4.1.bn2" in ran.result.frozen_proof.left_out
    assert float(saved(ran.out)["bn1.num_batches_tracked"]) == 2
