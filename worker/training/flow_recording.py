"""Records the `Flow` of a network: what its forward works on, and what autograd keeps, module by module.

The network runs in training mode with everything trainable, with batches of 2 and of 3, whose difference is
one sample; once in eval mode, which tells the modules that work otherwise there; and both batches with
pictures of twice the side. Its tensors have no values and no memory then, so that the largest network costs
no more than its number of operations. One that looks at its values runs on real ones instead.

What training takes beside what a flow tells: cuDNN's workspaces, what the allocator cannot use, and the
gradients of activations while the backward runs. Autocast makes about half of it. The mask of a dropout is
counted as the CPU keeps it, at four bytes an element; CUDA takes one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from shared.domain.errors import Invalid
from shared.domain.flow import Flow, FlowSizes, FlowStep, Kept, Varies
from worker.training.flow_trace import Trace, TracedStep, Wanted, trace

Size = tuple[int, int]
BuildAt = Callable[[Size], nn.Module]
# What the steps did, in plain values: equal for two batches of the same network.
Work = list[tuple[str, list[int], list[int], list[str], list[int]]]


def record_flow(build: BuildAt, image_size: Size) -> Flow:
    """The flow of the network that `build` makes for pictures of a size (height, width in pixels).

    Raises whatever the network's forward raises, and `Invalid` where it does other work for another batch.
    """
    try:
        return _record(build, image_size, FakeTensorMode(allow_non_fake_inputs=True))
    except Exception:  # it may need values; if it is broken, it says so again
        return _record(build, image_size, None)


def _record(build: BuildAt, image_size: Size, fake: FakeTensorMode | None) -> Flow:
    network = _trainable(build(image_size), fake)
    with fake or nullcontext():
        steps, sizes = _traced(network, image_size)
        in_eval = trace(network.eval(), _pictures(2, image_size))
    larger = _larger(steps, build, image_size, fake) if fake else None
    return _flow(steps, in_eval, sizes, larger)


def _larger(steps: Trace, build: BuildAt, image_size: Size, fake: FakeTensorMode) -> FlowSizes | None:
    """The sizes for pictures of twice the side, None where the network does not take them."""
    height, width = image_size
    larger = (2 * height, 2 * width)
    try:
        network = _trainable(build(larger), fake)
        with fake:
            others, sizes = _traced(network, larger)
    except Exception:  # a network for one size raises as it likes
        return None
    return sizes if _work(others) == _work(steps) else None


def _trainable(network: nn.Module, fake: FakeTensorMode | None) -> nn.Module:
    """The network with all of it trainable, in a fake mode without values. What is shared stays shared."""
    network.requires_grad_(True)
    if fake:
        made: dict[int, Tensor] = {}
        for module in network.modules():
            for held in (module._parameters, module._buffers):
                held |= {n: made.setdefault(id(t), _like(t, fake)) for n, t in held.items() if t is not None}
    return network


def _like(tensor: Tensor, fake: FakeTensorMode) -> Tensor:
    with fake:
        like = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(like) if isinstance(tensor, nn.Parameter) else like


def _traced(network: nn.Module, image_size: Size) -> tuple[Trace, FlowSizes]:
    """The forward in training mode, and the bytes for one sample."""
    fewer, more = (trace(network.train(), _pictures(batch, image_size)) for batch in (2, 3))
    if _work(fewer) != _work(more):
        raise Invalid("its forward does other work for 3 pictures than for 2", param="model")
    both = zip(_sizes(fewer), _sizes(more), strict=True)
    return fewer, FlowSizes(
        image_size, *(tuple(b - a for a, b in zip(least, most, strict=True)) for least, most in both)
    )


def _pictures(batch: int, image_size: Size) -> Tensor:
    return torch.zeros(batch, 3, *image_size)


def _work(found: Trace) -> Work:
    places = found.kept_places()
    return [
        (
            *(step.module, list(step.inputs), list(step.detached), list(step.parameters)),
            [places[key] for key in step.kept],
        )
        for step in found.steps
    ]


def _sizes(found: Trace) -> tuple[list[int], list[int], list[int]]:
    """Bytes of each step's outputs, of the most that it takes at once, and of each kept tensor."""
    outputs = [sum(found.storages[key].bytes for key in step.outputs) for step in found.steps]
    working = [found.most_at_once(step) for step in found.steps]
    return outputs, working, [found.storages[key].bytes for key in found.kept_places()]


def _flow(found: Trace, in_eval: Trace, sizes: FlowSizes, larger: FlowSizes | None) -> Flow:
    """The traced steps as data, without the tensors that are the same for every batch."""
    growing = [place for place, grows in enumerate(sizes.tensors) if grows]
    keys = list(found.kept_places())
    place_of = {keys[place]: n for n, place in enumerate(growing)}
    varies = _varying(found, in_eval)
    return Flow(
        image_size=sizes.image_size,
        steps=tuple(
            _step(step, place_of, sizes.output_bytes[number], sizes.working_bytes[number], varies)
            for number, step in enumerate(found.steps)
        ),
        tensors=tuple(sizes.tensors[place] for place in growing),
        larger=larger and replace(larger, tensors=tuple(larger.tensors[place] for place in growing)),
    )


def _step(
    step: TracedStep, place_of: Mapping[int, int], output: int, working: int, varies: Mapping[str, Varies]
) -> FlowStep:
    kept = ((place_of[key], wanted) for key, wanted in step.kept_for().items() if key in place_of)
    return FlowStep(
        module=step.module,
        inputs=tuple(step.inputs),
        parameters=tuple(step.parameters),
        kept=tuple(_kept(tensor, wanted) for tensor, wanted in kept),
        output_bytes=output,
        working_bytes=working,
        detached=tuple(step.detached),
        varies=varies.get(step.module, Varies.NEVER),
    )


def _kept(tensor: int, wanted: Wanted) -> Kept:
    inputs = tuple(one for one in wanted if isinstance(one, int))
    return Kept(tensor, inputs, tuple(one for one in wanted if isinstance(one, str)))


def _varying(found: Trace, in_eval: Trace) -> dict[str, Varies]:
    """The modules that work otherwise in training mode, and those that are random in eval mode too."""
    training, still = _words(found), _words(in_eval)
    random = {step.module for step in in_eval.steps for one in step.operations if one.call.is_random}
    differing = {path for path in training if training[path] != still.get(path)}
    return dict.fromkeys(differing, Varies.TRAINING) | dict.fromkeys(random, Varies.ALWAYS)


def _words(found: Trace) -> dict[str, list[tuple[str, ...]]]:
    """What each module does, in its order."""
    words: dict[str, list[tuple[str, ...]]] = {}
    for step in found.steps:
        words.setdefault(step.module, []).extend(one.call.words for one in step.operations)
    return words
