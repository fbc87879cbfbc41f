"""Gradient checkpointing: less is kept, and the weights come out with the same bits."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_networks import NETWORKS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrizations import spectral_norm
from trainer_runs import MakeSpec, Ran, RunHere, new_spec, run_several

from shared import catalog
from worker.training.models import build
from worker.training.recomputation import recompute
from worker.training.tasks.outputs import training_loss

BLOCKS = ("layer1", "layer2", "layer3")


class Plain(nn.Module):
    """Layers in a row without blocks, some of them in place, as in VGG."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(5)]
        layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)]
        for convolution in convolutions:
            layers += [nn.LeakyReLU(0.5, inplace=True), convolution]
        self.features = nn.Sequential(*layers, nn.LeakyReLU(0.5, inplace=True), nn.Dropout(0.3))
        self.fc = nn.Linear(8, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.fc(self.features(pictures).mean(dim=(2, 3)))


class Jitter(nn.Module):
    """Draws from Python's and numpy's generators."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures * (1 + 0.1 * random.random()) + 0.1 * np.random.random()


class Moving(nn.Module):
    """A block that draws, and whose weights depend on buffers that each forward moves."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Jitter(), spectral_norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8, momentum=None), nn.ReLU()
        )
        self.fc = nn.Linear(8, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.fc(self.block(pictures).mean(dim=(2, 3)))


OF_OUR_OWN: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "plain": (Plain, [f"features.{n}" for n in (0, 1, 3, 5, 7, 9, 11)]),
    "moving": (Moving, ["block"]),
    "drawing": (NETWORKS["drawing"], list(BLOCKS)),
}
OF_TORCHVISION = ["googlenet", "densenet121", "shufflenet_v2_x0_5", "efficientnet_b0", "swin_t", "vgg11_bn"]


@pytest.mark.parametrize(
    "name", [*OF_OUR_OWN, *(pytest.param(n, marks=pytest.mark.slow) for n in OF_TORCHVISION)]
)
def test_gradients_and_buffers_have_the_same_bits_and_less_is_kept(name: str) -> None:
    network, blocks = (
        OF_OUR_OWN[name]
        if name in OF_OUR_OWN
        else (lambda: build(name, "torchvision", 10), catalog.get(name).tree.blocks)
    )
    side = 16 if name in OF_OUR_OWN else 64

    whole, kept_by_whole = two_steps(network, side)
    again, kept = two_steps(network, side, blocks)

    assert again.keys() == whole.keys()
    assert [key for key in whole if not torch.equal(whole[key], again[key])] == []
    assert kept < 0.75 * kept_by_whole


def two_steps(network: Callable[[], nn.Module], side: int, blocks: Any = ()) -> tuple[dict[str, Tensor], int]:
    """The gradients, buffers and losses of two steps, and the bytes that the first kept for its backward."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = network().train()
    recompute(model, blocks)
    found: dict[str, Tensor] = {}
    kept: list[int] = []
    for step in range(2):
        pictures = torch.randn(4, 3, side, side)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
            loss = training_loss(model(pictures), lambda scores: cross_entropy(scores, torch.arange(4)))
        loss.backward()
        found |= {
            f"{step} {name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
        }
        found |= {f"{step} {name}": buffer.clone() for name, buffer in model.named_buffers()}
        found[f"{step} loss"] = loss.detach()
    return found, sum(kept)


SCHEDULE: dict[str, Any] = {
    "freeze": ["stem", "bn", *BLOCKS],
    "later": {1: ["stem", "bn", "layer1"], 2: ["stem", "bn", "layer2"]},
}


def with_and_without(make: Callable[..., Any], **fields: Any) -> dict[str, Any]:
    """The same spec twice."""
    asked = fields.pop("hyperparameters", {})
    return {
        name: make(**fields, hyperparameters={**asked, "gradient_checkpointing": name == "again"})
        for name in ("whole", "again")
    }


def assert_same_bits(whole: Ran, again: Ran) -> None:
    one, other = (load_file(ran.out / "model.safetensors") for ran in (whole, again))
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert whole.result.epochs == again.result.epochs
    assert [p.ranks.checksum for p in whole.result.phases] == [p.ranks.checksum for p in again.result.phases]


def test_a_run_ends_with_the_same_bits_and_a_frozen_prefix_does_not_run_again(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    specs = with_and_without(
        lambda **fields: make_spec("drawing", **fields), **SCHEDULE, hyperparameters={"n_epochs": 3}
    )

    whole, again = (run_here(spec, name) for name, spec in specs.items())

    assert_same_bits(whole, again)
    # A gradient passes layer2 on its way to layer1, though layer2 itself is frozen.
    assert [phase.recomputed for phase in again.result.phases] == [[], ["layer2", "layer3"], list(BLOCKS)]
    assert again.result.decisions["gradient_checkpointing"].startswith("by phase 0, 2, 3 of 3 blocks")


@pytest.mark.slow
def test_on_two_ranks_too_with_unused_parameters_and_synchronised_statistics(
    digits: Path, tmp_path: Path
) -> None:
    def make(**fields: Any) -> Any:
        return new_spec("sidelined", digits, world_size=2, **fields)

    plain = with_and_without(make, freeze=["stem", "bn"], hyperparameters={"n_epochs": 2})
    synchronised = with_and_without(make, hyperparameters={"sync_batch_norm": True})

    ran = run_several(
        {**plain, **{f"{name}-sync": spec for name, spec in synchronised.items()}}, tmp_path / "out"
    )

    assert_same_bits(ran["whole"], ran["again"])
    assert_same_bits(ran["whole-sync"], ran["again-sync"])
    assert ran["again"].result.find_unused_parameters.value
    assert ran["again"].result.phases[0].recomputed == list(BLOCKS)


@pytest.mark.parametrize(
    ("model", "freeze", "why"),
    [
        ("custom_network", "none", "none of its blocks has layers inside"),
        ("residual", ["stem", "bn", *BLOCKS], "no gradient passes a block of it"),
    ],
)
def test_it_is_refused_where_it_would_change_nothing(
    make_spec: MakeSpec, run_here: RunHere, model: str, freeze: Any, why: str
) -> None:
    ran = run_here(make_spec(model, freeze=freeze, hyperparameters={"gradient_checkpointing": True}))

    assert ran.error["code"] == "no_effect"
    assert why in ran.error["message"]
    assert not ran.of_type("train")
