"""How data flows through a network, and what its backward pass needs: as data, so that a plan can count it.

It is recorded from one forward of the real network in training mode. What a freeze plan costs follows from
it: `shared.domain.flow_needs` tells that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
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
class Flow:
    """Steps in the order of execution, and the bytes of each kept tensor for one sample, in float32.

    `image_size` is the (height, width in pixels) of the pictures that it was recorded with. Parameters and
    tensors that do not grow with the batch are left out of `tensors`.
    """

    image_size: tuple[int, int]
    steps: tuple[FlowStep, ...]
    tensors: tuple[int, ...]

    def to_data(self) -> dict[str, Any]:
        """Plain JSON values. Steps are named by how far back they are, so that like blocks look alike."""
        return {
            "image_size": list(self.image_size),
            "steps": [_step_to_data(number, step) for number, step in enumerate(self.steps)],
            "tensors": list(self.tensors),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Flow:
        height, width = data["image_size"]
        steps = tuple(_step_from_data(number, fields) for number, fields in enumerate(data["steps"]))
        return cls((height, width), steps, tuple(data["tensors"]))


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
