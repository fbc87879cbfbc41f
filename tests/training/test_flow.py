"""What a flow says that training keeps, against what a training step of the real network keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from shared import catalog
from shared.domain.errors import Invalid
from shared.domain.flow import Flow, Varies
from shared.domain.flow_needs import FlowNeeds, flow_needs
from shared.domain.freeze import PlanPhase, parse_freeze, resolve
from shared.domain.module_tree import ModuleTree
from worker.training import models
from worker.training.flow_recording import record_flow
from worker.training.freezing import freeze, set_training_modes

# The side of the pictures.
NETWORKS = {"resnet18": 64, "mobilenet_v3_small": 96}
WIDE_NETWORKS = {
    "vit_b_16": 32,
    "densenet121": 64,
    "googlenet": 224,
    "inception_v3": 299,
    "swin_t": 224,
    "convnext_tiny": 96,
    "efficientnet_b0": 224,
    "maxvit_t": 224,
    "deeplabv3_mobilenet_v3_large": 520,
}
# A flow counts the noise of dropout and stochastic depth also where they are still: up to two hundredths.
WITH_NOISE = {
    *("mobilenet_v3_small", "googlenet", "inception_v3", "efficientnet_b0", "deeplabv3_mobilenet_v3_large"),
    *("swin_t", "convnext_tiny", "maxvit_t"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_keeps_what_the_flow_says(name: str) -> None:
    compare(name, NETWORKS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE_NETWORKS)
def test_a_training_step_of_further_networks_keeps_what_the_flow_says(name: str) -> None:
    compare(name, WIDE_NETWORKS[name])


def compare(name: str, side: int) -> None:
    """For freeze plans that cut the network in unlike ways."""
    known, size = catalog.get(name), (side, side)
    model = models.build(name, "torchvision", image_size=size)
    flow = catalog.flow_of(name).at(size)
    for spec in specs(known.tree):
        phase = resolve(parse_freeze(spec), known.tree_at(size)).phases[0]
        said = flow_needs(flow, phase.trainable, phase.still).kept_bytes
        kept = kept_by_a_step(model, phase, size)
        off_by = abs(said - kept) / kept
        assert off_by <= (0.02 if name in WITH_NOISE else 0), f"{spec}: said {said}, kept {kept}"


def specs(tree: ModuleTree) -> Iterator[Any]:
    blocks, names = tree.blocks, list(tree.shapes)
    half = len(blocks) // 2
    yield "none"
    yield "backbone"
    yield list(blocks[:half])
    yield {"rules": [{"freeze": "**"}, {"train": blocks[half]}]}
    yield list(blocks[::2])
    yield names[::2]
    yield {"rules": [{"freeze": "**"}, {"train": "name:bias"}]}


def kept_by_a_step(model: nn.Module, phase: PlanPhase, size: tuple[int, int]) -> int:
    """Bytes for one sample, by the difference of two batches, as autograd itself tells them."""
    freeze(model, phase)
    set_training_modes(model, phase)
    return kept_bytes(model, torch.zeros(3, 3, *size)) - kept_bytes(model, torch.zeros(2, 3, *size))


def kept_bytes(model: nn.Module, pictures: Tensor) -> int:
    """All memory that the forward's graph holds on to, each piece once."""
    held: list[ref[Held]] = []

    def hold(tensor: Tensor) -> Held:
        one = Held(tensor)
        held.append(ref(one))
        return one

    with saved_tensors_hooks(hold, lambda one: one.tensor):
        output = model(pictures)
    alive = [one for one in (reference() for reference in held) if one is not None]
    assert output is not None
    return sum({one.address: one.bytes for one in alive}.values())


class Held:
    """Keeps a tensor's memory, and is gone with the graph that keeps it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()
        storage = self.tensor.untyped_storage()
        self.address, self.bytes = storage.data_ptr(), storage.nbytes()


def flow_of(build: Callable[[], nn.Module], side: int = 8) -> Flow:
    return record_flow(lambda _size: build(), (side, side))


def needs(flow: Flow, *trainable: str, still: tuple[str, ...] = ()) -> FlowNeeds:
    return flow_needs(flow, trainable, still)


def everything(flow: Flow) -> FlowNeeds:
    return needs(flow, *(name for step in flow.steps for name in step.parameters))


class Small(nn.Module):
    """Two convolutions; subclasses say what happens between and after them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 5, 3, padding=1)


PICTURE, FOUR = 3 * 8 * 8 * 4, 4 * 8 * 8 * 4


def test_a_parameter_counts_where_it_is_read_and_not_where_it_is_held() -> None:
    class Scaled(Small):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return functional.conv2d(self.scale * self.a(x), self.b.weight)

    flow = flow_of(Scaled)
    assert [(step.module, step.parameters) for step in flow.steps] == [
        ("a", ("a.weight", "a.bias")),
        ("", ("scale", "b.weight")),
    ]
    assert needs(flow, "scale").kept_bytes == 2 * FOUR
    assert needs(flow, "b.weight").kept_bytes == FOUR
    assert needs(flow, "a.weight").kept_bytes == PICTURE + FOUR


def test_a_write_in_place_makes_no_tensor_of_its_own_and_shared_memory_counts_once() -> None:
    class InPlace(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu_().view(-1, 4, 8, 8))

    flow = flow_of(InPlace)
    assert everything(flow).kept_bytes == PICTURE + FOUR
    assert [(step.module, step.inputs) for step in flow.steps] == [("a", ()), ("", (0,)), ("b", (1,))]
    assert (flow.steps[1].output_bytes, flow.steps[1].working_bytes) == (FOUR, 0)


def test_a_result_that_nobody_uses_keeps_nothing() -> None:
    class Unused(Small):
        def forward(self, x: Tensor) -> Tensor:
            code = self.a(x)
            self.b(code)
            return code.sum((1, 2, 3))

    assert everything(flow_of(Unused)).kept_bytes == PICTURE


def test_no_gradient_passes_a_detached_result() -> None:
    class Probe(Small):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                code = self.a(x)
            return self.b(code)

    flow = flow_of(Probe)
    assert flow.steps[1].detached == (0,)
    assert needs(flow, "b.weight").backward == {1}
    assert needs(flow, "b.weight").fixed == {0}
    assert needs(flow, "a.weight").fixed == set()


class Twice(torch.autograd.Function):
    """Its inner work is hidden from autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


def test_a_function_of_ones_own_passes_the_gradient() -> None:
    class Custom(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(Twice.apply(self.a(x)))

    flow = flow_of(Custom)
    assert needs(flow, "a.bias").backward == {0, 1, 2}
    # The picture goes with the weights, which a convolution keeps together, whichever of them trains.
    assert needs(flow, "a.bias").kept_bytes == PICTURE + FOUR + FOUR
    assert needs(flow, "b.weight").kept_bytes == FOUR


def test_steps_that_are_different_in_training_are_found_by_what_they_do() -> None:
    class Random(Small):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            noisy = self.a(x) if not self.training else functional.dropout(self.a(x), 0.5)
            return self.b(self.norm(noisy))

    class Noisy(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) + torch.rand(1))

    varying = {step.module: step.varies for step in flow_of(Random).steps}
    never, training = Varies.NEVER, Varies.TRAINING
    assert varying == {"a": never, "": training, "norm": training, "b": never}
    noisy = flow_of(Noisy)
    assert noisy.steps[1].varies is Varies.ALWAYS
    assert needs(noisy, "b.weight", still=("", "a")).fixed == {0}


def test_a_network_that_looks_at_its_values_runs_on_real_ones() -> None:
    class Looks(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) if bool((x == 0).all()) else x)

    assert everything(flow_of(Looks)).kept_bytes == PICTURE + FOUR


def test_a_network_that_does_other_work_for_another_batch_is_refused() -> None:
    class Uneven(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) if len(x) == 2 else self.a(x).relu())

    with pytest.raises(Invalid, match="other work for 3 pictures than for 2"):
        flow_of(Uneven)


def test_what_a_network_raises_is_told() -> None:
    class Broken(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(x)

    with pytest.raises(RuntimeError, match="3 channels"):
        flow_of(Broken)


def test_a_shared_module_is_two_steps_and_its_tied_weight_has_one_name() -> None:
    class Tied(Small):
        def __init__(self) -> None:
            super().__init__()
            self.c = nn.Conv2d(3, 4, 3, padding=1)
            self.c.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) + self.a(x) + self.c(x))

    flow = flow_of(Tied)
    assert [step.module for step in flow.steps] == ["a", "a", "", "c", "", "b"]
    assert flow.steps[3].parameters == ("a.weight", "c.bias")


def test_bytes_at_another_size_lie_on_a_line_with_those_that_are_known() -> None:
    class Pooled(Small):
        def forward(self, x: Tensor) -> Tensor:
            pooled: Tensor = functional.adaptive_avg_pool2d(self.a(x), 2)
            return self.b(pooled)

    flow, at_12 = flow_of(Pooled), flow_of(Pooled, side=12)
    assert flow.at((12, 12)) == Flow(at_12.image_size, at_12.steps, at_12.tensors)
    assert flow.at((8, 8)) is flow
    alone = Flow(flow.image_size, flow.steps, flow.tensors)
    assert alone.at((16, 16)).tensors == tuple(4 * size for size in flow.tensors)
