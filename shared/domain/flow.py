"""How data flows through a network, and what its backward pass needs: as data, so that a plan can count it.

It is recorded from one forward of the real network in training mode. What a freeze plan costs follows from
it: `shared.domain.flow_needs` tells that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod
from typing import Any


class Varies(StrEnum):
    """Whether a step may give another result for the same picture in another batch or epoch."""

    NEVER = "never"
    TRAINING = "training"  # only while its module is in training mode: BatchNorm, dropout, stochastic depth
    ALWAYS = "always"  # it draws random numbers in eval mode too


@dataclass(frozen=True, slots=True)
class Kept:
    """A tensor that a step keeps for its backward, where a gradient is wanted that needs it.

    `tensor` is an index into `Flow.tensors`. It is kept if one of `parameters` trains, or if one of `inputs`
    (indexes of earlier steps) needs backward; so a Linear keeps what it reads for its weight's sake alone.
    """

    tensor: int
    inputs: tuple[int, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowStep:
    """Work of one module without a break: what its own forward computes between the calls of its children.

    `inputs` are indexes of earlier steps whose results it reads, and to which it passes a gradient back;
    `detached` are those that it reads without passing one. A step without either reads the model's input
    alone. `parameters` are the canonical names of those that it reads, wherever they are held.
    `output_bytes` is the memory that others read of it, also where it wrote into its input's;
    `working_bytes` is the most that it takes anew at once. Both are for one sample.
    """

    module: str
    inputs: tuple[int, ...]
    parameters: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    output_bytes: int = 0
    working_bytes: int = 0
    detached: tuple[int, ...] = ()
    varies: Varies = Varies.NEVER


@dataclass(frozen=True)
class FlowSizes:
    """What the bytes of a flow are for pictures of another size: each step's, and each kept tensor's."""

    image_size: tuple[int, int]
    output_bytes: tuple[int, ...]
    working_bytes: tuple[int, ...]
    tensors: tuple[int, ...]

    @property
    def pixels(self) -> int:
        return prod(self.image_size)

    @property
    def of_nothing(self) -> FlowSizes:
        """What a picture without pixels would take."""
        no_steps = (0,) * len(self.output_bytes)
        return FlowSizes((0, 0), no_steps, no_steps, (0,) * len(self.tensors))

    def to_data(self) -> list[list[int]]:
        return [list(self.image_size), list(self.output_bytes), list(self.working_bytes), list(self.tensors)]

    @classmethod
    def from_data(cls, data: list[list[int]]) -> FlowSizes:
        (height, width), outputs, working, tensors = data
        return cls((height, width), tuple(outputs), tuple(working), tuple(tensors))


@dataclass(frozen=True)
class Flow:
    """Steps in the order of execution, and the bytes of each kept tensor for one sample, in float32.

    `image_size` is the (height, width in pixels) of the pictures that it was recorded with. Parameters and
    tensors that do not grow with the batch are left out of `tensors`. `larger` has the bytes at a larger
    size, where the network takes one: `at` tells those of other sizes from the two.
    """

    image_size: tuple[int, int]
    steps: tuple[FlowStep, ...]
    tensors: tuple[int, ...]
    larger: FlowSizes | None = None

    @property
    def sizes(self) -> FlowSizes:
        """The bytes at its own size."""
        outputs = tuple(step.output_bytes for step in self.steps)
        working = tuple(step.working_bytes for step in self.steps)
        return FlowSizes(self.image_size, outputs, working, self.tensors)

    def at(self, image_size: tuple[int, int]) -> Flow:
        """The flow for pictures of `image_size` (height, width): every byte on a line over their pixels.

        Exact where each layer divides the size evenly. Where nothing is known of a larger size, all bytes
        grow as the pixels do.
        """
        if image_size == self.image_size:
            return self
        low, high = (self.sizes, self.larger) if self.larger else (self.sizes.of_nothing, self.sizes)
        sizes = _on_line(low, high, image_size)
        both = zip(self.steps, sizes.output_bytes, sizes.working_bytes, strict=True)
        steps = tuple(replace(s, output_bytes=output, working_bytes=working) for s, output, working in both)
        return replace(self, image_size=image_size, steps=steps, tensors=sizes.tensors, larger=None)

    def to_data(self) -> dict[str, Any]:
        """Plain JSON values. Steps are named by how far back they are, so that like blocks look alike."""
        return {
            "image_size": list(self.image_size),
            "steps": [_step_to_data(number, step) for number, step in enumerate(self.steps)],
            "tensors": list(self.tensors),
            "larger": self.larger.to_data() if self.larger else None,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Flow:
        height, width = data["image_size"]
        steps = tuple(_step_from_data(number, fields) for number, fields in enumerate(data["steps"]))
        larger = FlowSizes.from_data(data["larger"]) if data["larger"] else None
        return cls((height, width), steps, tuple(data["tensors"]), larger)


def _on_line(low: FlowSizes, high: FlowSizes, image_size: tuple[int, int]) -> FlowSizes:
    """The sizes on the line through two that are known."""
    share = (prod(image_size) - low.pixels) / (high.pixels - low.pixels)

    def between(at_low: tuple[int, ...], at_high: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(max(0, round(a + share * (b - a))) for a, b in zip(at_low, at_high, strict=True))

    return FlowSizes(
        image_size,
        between(low.output_bytes, high.output_bytes),
        between(low.working_bytes, high.working_bytes),
        between(low.tensors, high.tensors),
    )


def _step_to_data(number: int, step: FlowStep) -> list[Any]:
    kept = [
        [kept.tensor, [number - i for i in kept.inputs], [step.parameters.index(p) for p in kept.parameters]]
        for kept in step.kept
    ]
    inputs, detached = ([number - i for i in read] for read in (step.inputs, step.detached))
    names = list(step.parameters)
    return [step.module, inputs, detached, names, kept, step.output_bytes, step.working_bytes, step.varies]


def _step_from_data(number: int, fields: list[Any]) -> FlowStep:
    module, inputs, detached, names, kept, output_bytes, working_bytes, varies = fields
    return FlowStep(
        module=module,
        inputs=tuple(number - back for back in inputs),
        detached=tuple(number - back for back in detached),
        parameters=tuple(names),
        kept=tuple(
            Kept(tensor, tuple(number - back for back in wanted), tuple(names[place] for place in trained))
            for tensor, wanted, trained in kept
        ),
        output_bytes=output_bytes,
        working_bytes=working_bytes,
        varies=Varies(varies),
    )
