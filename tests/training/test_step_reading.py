"""How a network that brings its own training steps is described, and what is wrong with those it offers."""

from __future__ import annotations

from typing import Any

import pytest
from step_networks import Pair
from torch import Tensor, nn

from shared.domain.errors import Invalid
from shared.domain.module_tree import ModuleTree
from shared.domain.training_steps import read_steps
from worker.training.describe import describe_registered
from worker.training.network_tree import describe_module
from worker.training.own_steps.reading import own_steps

GENERATOR = {"name": "generator", "train": "generator", "loss": "generator_loss"}


class Unusual(Pair):
    """With methods that no step can call, and an attribute that is none."""

    weight_of_loss = 2.0

    def total_loss(self, pictures: Tensor) -> Tensor:
        return pictures.sum()

    def loss_with_more(self, pictures: Tensor, classes: Tensor, strength: float) -> Tensor:
        return pictures.sum() * strength


def refusal(model: nn.Module) -> Invalid:
    with pytest.raises(Invalid) as refused:
        own_steps(model, describe_module(model, ()))
    return refused.value


def offering(*steps: Any) -> nn.Module:
    model = Unusual()
    model.training_steps = steps
    return model


def described(name: str) -> dict[str, Any]:
    return describe_registered(name)


def test_the_steps_are_described_and_read_again() -> None:
    pair = described("pair")

    assert pair["task"] == "custom"
    assert pair["head"] == []
    steps = read_steps(pair["training_steps"])
    assert [(step.name, step.train, step.loss) for step in steps] == [
        ("discriminator", ("discriminator",), "discriminator_loss"),
        ("generator", ("generator",), "generator_loss"),
    ]


def test_a_network_that_cannot_be_called_itself_is_described_by_its_modules_alone() -> None:
    silent = described("silent")

    assert "error" not in silent
    assert "outputs" not in silent
    assert silent["image_size"] == [16, 16]
    assert ModuleTree.from_data(silent["tree"]).blocks[:2] == ("generator.0", "generator.1")


def test_a_fault_is_described_with_its_place_and_the_nearest_names() -> None:
    error = described("misnamed")["error"]
    assert error.startswith("Invalid: training_steps[1].train[0]: 'generater' matches no parameter")
    assert "generator" in error


@pytest.mark.parametrize(
    ("steps", "param", "said"),
    [
        (
            [{**GENERATOR, "loss": "generater_loss"}],
            "training_steps[0].loss",
            "no method 'generater_loss'; the nearest names are generator_loss, ",
        ),
        ([{**GENERATOR, "loss": "weight_of_loss"}], "training_steps[0].loss", "no method 'weight_of_loss'"),
        ([{**GENERATOR, "loss": "total_loss"}], "training_steps[0].loss", "(images, targets): too many"),
        ([{**GENERATOR, "loss": "loss_with_more"}], "training_steps[0].loss", "missing a required argument"),
        (
            [GENERATOR, {**GENERATOR, "name": "d", "train": "generator.7"}],
            "training_steps[1].train[0]",
            "nearest",
        ),
        ([], "training_steps", "at least 1 item"),
    ],
)
def test_steps_that_cannot_run(steps: list[Any], param: str, said: str) -> None:
    error = refusal(offering(*steps))
    assert error.param == param
    assert said in error.message


def test_a_network_of_task_custom_without_steps() -> None:
    error = refusal(nn.Linear(2, 2))
    assert error.param == "training_steps"
    assert "its task is custom, so it has to offer training_steps" in error.message
