"""What modules put out, as it is told before anything runs, is what the networks do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from extractor_runs import ROOM, extract_here, extractor_spec
from torch import Tensor, nn
from trainer_runs import SIZES

from shared import catalog
from shared.catalog.outputs import FOLDER, SUFFIX, write_outputs
from shared.domain.activations import ActivationsWanted
from shared.domain.errors import Invalid
from shared.domain.module_outputs import Outputs, estimated_bytes
from worker.training.catalog_source import read_outputs
from worker.training.describe import describe_registered
from worker.training.module_outputs import record_outputs, with_classes_at

HANDFUL = ["resnet18", "vit_b_16", "swin_t"]


def wanted(*modules: str, **how: str) -> ActivationsWanted:
    return ActivationsWanted.model_validate({"modules": modules, "max_bytes": ROOM, **how})


@pytest.mark.parametrize(
    "name",
    [name if name in HANDFUL else pytest.param(name, marks=pytest.mark.slow) for name in catalog.names()],
)
def test_every_file_is_what_the_generator_writes_now(name: str, tmp_path: Path) -> None:
    write_outputs(name, read_outputs(name), tmp_path)
    assert (tmp_path / f"{name}{SUFFIX}").read_bytes() == (FOLDER / f"{name}{SUFFIX}").read_bytes()


@pytest.mark.parametrize("how", [{}, {"pool": "mean", "output": "parquet", "dtype": "float16"}])
def test_what_is_told_of_a_registered_model_is_what_is_saved(
    digits: Path, tmp_path: Path, how: dict[str, str]
) -> None:
    described = describe_registered("custom_network")
    outputs = Outputs.from_data(described["outputs"])
    modules = ["conv1", "conv2", "fc"]
    shapes = [outputs.saved_shape(path, wanted(*modules, **how), SIZES["custom_network"]) for path in modules]

    ran = extract_here(extractor_spec(digits, modules, wanted=how), tmp_path / "out")

    assert [ran.index.modules[path].shape for path in modules] == shapes
    told = estimated_bytes(shapes, wanted(*modules, **how), 100)
    assert told is not None
    if how.get("output") != "parquet":
        headers = 2_000 * len(ran.index.shards)
        shard_bytes = sum(shard.bytes for shard in ran.index.shards)
        assert told <= shard_bytes <= told + headers


class Odd(nn.Module):
    """Its logits take part in what comes behind them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.scores = nn.Conv2d(4, classes, 1)
        self.act = nn.ReLU()
        self.pair = nn.MultiheadAttention(4, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.stem(images))
        tokens = x.flatten(2).transpose(1, 2)
        self.pair(tokens, tokens, tokens)
        return self.act(self.scores(x))


def test_what_depends_on_the_classes_follows_them_and_the_rest_is_refused() -> None:
    outputs = with_classes_at(*(record_outputs(Odd(n), (8, 8)) for n in (10, 11)))

    assert Outputs.from_data(outputs.to_data()) == outputs
    three = outputs.with_num_classes(3)
    assert three.saved_shape("scores", wanted("scores"), (8, 8)) == [3, 6, 6]
    assert three.saved_shape("stem", wanted("stem"), (8, 8)) == [4, 6, 6]
    assert three.saved_shape("stem", wanted("stem"), (9, 9)) is None
    assert three.saved_shape("scores", wanted("scores", pool="mean"), (9, 9)) == [3]
    for path, words in (("act", "2 times"), ("pair", "tuple"), ("pair.out_proj", "never called")):
        with pytest.raises(Invalid, match=words):
            outputs.check([path], "none", "modules")


def test_a_recording_leaves_modes_and_hooks_as_they_were() -> None:
    network = Odd(2).train()
    network.act.eval()
    record_outputs(network, (8, 8))

    assert [m.training for m in (network, network.stem, network.act)] == [True, True, False]
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.is_grad_enabled()
