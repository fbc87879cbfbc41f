"""What a plan reckons with, against what real runs write and keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_runs import MakeSpec, RunHere

from shared import catalog
from shared.domain.events import TrainerSpec
from shared.domain.memory import Training
from shared.domain.output_sizes import artifact_sizes, checkpoint_size
from shared.domain.recomputed import parts_that_run_again
from shared.domain.tensor_bytes import TensorBytes
from worker.training.models import build, describe_module
from worker.training.recomputation import recompute

SCHEDULE = {
    "rules": [{"freeze": "**"}, {"train": "@head"}],
    "schedule": [{"at_epoch": 1, "train": "conv2"}],
}


def tree_of(spec: TrainerSpec) -> Any:
    target = spec.target
    built = build(target.name, target.source, target.num_classes)
    return describe_module(built, target.head)


@pytest.mark.parametrize(
    ("model", "freeze", "hyperparameters"),
    [
        ("custom_network", "none", {"optimizer": "sgd"}),
        ("resnet18", "backbone", {"optimizer": "adamw", "momentum": 0.0}),
        ("custom_network", SCHEDULE, {"optimizer": "adamw", "momentum": 0.0, "n_epochs": 2}),
    ],
    ids=["all of a small network", "the head alone", "a schedule"],
)
def test_files_weigh_what_the_plan_says(
    make_spec: MakeSpec,
    run_here: RunHere,
    held_out: Path,
    model: str,
    freeze: Any,
    hyperparameters: dict[str, Any],
) -> None:
    validation = {"path": str(held_out), "format": "image_folder"}
    spec = make_spec(model, freeze=freeze, hyperparameters=hyperparameters, validation=validation)
    tree = tree_of(spec)
    weighed, phases = TensorBytes.of(tree), spec.freeze_plan.phases
    training = Training(spec.hyperparameters, area=1, world_size=1, validates=True)
    planned = checkpoint_size(weighed, phases, training, num_classes=10)
    sizes = artifact_sizes(tree, weighed, phases)

    ran = run_here(spec)

    assert ran.exit_code == 0, ran.errors
    *_, last = sorted((ran.out / "checkpoints").iterdir())
    written = {file.name: file.stat().st_size for file in last.iterdir()}
    assert written["moving.safetensors"] == pytest.approx(planned.moving_bytes, rel=0.03)
    in_state = planned.optimizer_bytes + planned.other_bytes
    assert written["state.pt"] == pytest.approx(in_state, rel=0.03)
    assert (ran.out / "model.safetensors").stat().st_size == pytest.approx(sizes.model_bytes, rel=0.03)
    trained = (ran.out / "trainable.safetensors").stat().st_size
    assert trained == pytest.approx(sizes.trainable_bytes, rel=0.05)


@pytest.mark.parametrize("model", ["resnet18", "alexnet", "densenet121", "vit_b_32"])
def test_the_plan_lets_the_same_parts_run_again_as_the_trainer(model: str) -> None:
    with torch.device("meta"):
        built = build(model, "torchvision")
    tree = catalog.get(model).tree
    assert set(parts_that_run_again(tree)) == set(recompute(built, tree.blocks))
