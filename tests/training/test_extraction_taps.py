"""Which modules' outputs can be saved, and which dimension of them is the features'."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from extractor_runs import ROOM
from torch import Tensor, nn

from shared.domain.activations import ActivationsWanted, ModuleActivations
from worker.training.errors import TrainingFailed
from worker.training.extraction_pooling import mean_over
from worker.training.extraction_taps import Collector, Taps, inspect
from worker.training.torchvision_compat import import_torchvision

PICTURES = torch.rand(3, 3, 8, 8)


class Odd(nn.Module):
    """Every kind of module that cannot be saved, and one that can."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU()
        self.unused = nn.Linear(4, 4)
        self.pair = Pair()
        self.turned = Turned()
        self.counts = Counts()
        self.shared = nn.Linear(4, 4)
        self.again = self.shared
        self.flat = Flat()

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.act(self.stem(images)))
        x, _ = self.pair(x)
        self.turned(x)
        self.counts(x)
        self.flat(x)
        return self.again(x.mean(dim=(2, 3)))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Turned(nn.Module):
    """The samples are not the first dimension. With three of them the shape does not tell."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3].transpose(0, 1)


class Counts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).argmax(dim=1)


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).unsqueeze(1).unsqueeze(1)


def look(*modules: str, **wanted: Any) -> dict[str, ModuleActivations]:
    asked = ActivationsWanted(modules=list(modules), max_bytes=ROOM, **wanted)
    return inspect(Odd().eval(), PICTURES, asked)


@pytest.mark.parametrize(
    ("module", "code", "words"),
    [
        ("stemm", "unknown_module", ["'stemm'", "stem"]),
        ("unused", "module_not_called", ["'unused'", "never called"]),
        ("act", "module_called_again", ["'act'", "2 times"]),
        ("pair", "bad_module_output", ["'pair'", "tuple"]),
        ("counts", "bad_module_output", ["'counts'", "int64"]),
        ("turned", "bad_module_output", ["'turned'", "[3, 2, 6, 6]", "2 samples"]),
    ],
)
def test_what_cannot_be_saved_is_refused_by_name(module: str, code: str, words: list[str]) -> None:
    with pytest.raises(TrainingFailed) as refusal:
        look("stem", module)

    assert refusal.value.code == code
    for word in words:
        assert word in refusal.value.message


def test_a_shared_module_is_found_under_each_of_its_paths() -> None:
    assert look("shared", "again")["again"].shape == [4]


def test_a_mean_that_does_not_say_itself_is_refused() -> None:
    with pytest.raises(TrainingFailed, match=r"'flat'.*\[1, 1, 4, 36\]"):
        look("flat", pool="mean")
    assert look("flat", output="parquet")["flat"].shape == [144]


def test_looking_leaves_no_trace() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = torch.get_rng_state()

    inspect(network, PICTURES, ActivationsWanted(modules=["0", "2"], max_bytes=ROOM))

    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_values_that_float16_cannot_hold_are_told_and_infinities_are_kept() -> None:
    network = nn.Sequential(nn.Flatten()).eval()
    layout = inspect(network, PICTURES, ActivationsWanted(modules=["0"], dtype="float16", max_bytes=ROOM))

    def collect(values: Tensor) -> Tensor:
        collector = Collector(layout)
        with Taps(network, ["0"], collector.take):
            network(values)
        return collector.rows(len(values))["0"]

    infinite = PICTURES.clone()
    infinite[0, 0, 0, 0] = float("inf")
    assert collect(infinite).dtype == torch.float16
    with pytest.raises(TrainingFailed, match="float16 cannot hold"):
        collect(PICTURES * 1e6)


def test_a_network_that_takes_another_way_is_told() -> None:
    network = Odd().eval()
    layout = inspect(network, PICTURES, ActivationsWanted(modules=["stem"], max_bytes=ROOM))
    collector = Collector(layout)
    with Taps(network, ["stem"], collector.take):
        network.stem(PICTURES)
        with pytest.raises(TrainingFailed, match="called more than once"):
            network.stem(PICTURES)
        collector.rows(3)
        with pytest.raises(TrainingFailed, match=r"\[3, 4, 2, 2\]"):
            network.stem(torch.rand(3, 3, 4, 4))
        with pytest.raises(TrainingFailed, match="is not called"):
            collector.rows(3)


# Of a picture's output: the dimensions that a mean is taken over, counted without the batch.
PLACES = {
    "swin_t": {
        "features.0": [0, 1],
        "features.0.0": [1, 2],
        "features.1.0": [0, 1],
        "features.1.0.mlp": [0, 1],
        "features.1.0.mlp.1": [0, 1],
        "features.2": [0, 1],
        "norm": [0, 1],
        "permute": [1, 2],
    },
    "convnext_tiny": {
        "features.1.0": [1, 2],
        "features.1.0.block": [1, 2],
        "features.1.0.block.2": [0, 1],
        "features.1.0.block.4": [0, 1],
        "features.2.0": [1, 2],
    },
    "maxvit_t": {
        "blocks.0.layers.0": [1, 2],
        "blocks.0.layers.0.layers.window_attention": [1, 2],
        "blocks.0.layers.0.layers.window_attention.attn_layer": [0, 1],
        "blocks.0.layers.0.layers.window_attention.partition_swap": [0, 1],
        "blocks.0.layers.0.layers.window_attention.departition_swap": [0, 1],
        "blocks.0.layers.0.layers.window_attention.mlp_layer.2": [0, 1],
    },
    "resnet18": {"relu": [1, 2], "layer1": [1, 2], "layer1.0.relu": [1, 2]},
}


@pytest.mark.parametrize("name", PLACES)
def test_the_features_are_where_the_class_puts_them(name: str) -> None:
    with torch.device("meta"):
        network = import_torchvision().models.get_model(name, weights=None)
    found = {path: mean_over(network, path, (7, 7, 7)) for path in PLACES[name]}
    assert found == PLACES[name]
    assert mean_over(network, "", (50, 768)) == [0]
    assert mean_over(network, "", (512,)) == []
