"""How data flows through a network, and what its backward pass needs: as data, so that a plan can count it.

It is recorded from one forward of the real network. What a freeze plan costs follows from it: a step needs
backward if it reads a parameter that trains, or the output of a step that needs backward; the tensors that
such steps keep are the activations that training holds, each counted once however many steps keep it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FlowStep:
    """Work of one module without a break: what its own forward computes between the calls of its children.

    `inputs` are indexes of earlier steps whose results it reads; a step without any reads the model's input.
    `parameters` are the canonical names of those that it reads, wherever they are held. The tensors that it
    keeps for backward are indexes into `Flow.tensors`: `kept_training` where one of its parameters trains,
    `kept_passing` where none does and a gradient only passes through. `output_bytes` is for one sample.
    """

    module: str
    inputs: tuple[int, ...]
    parameters: tuple[str, ...]
    kept_training: tuple[int, ...]
    kept_passing: tuple[int, ...]
    output_bytes: int


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
        """Plain JSON values: each step is a list of its fields."""
        return {
            "image_size": list(self.image_size),
            "steps": [
                [
                    *(step.module, list(step.inputs), list(step.parameters)),
                    *(list(step.kept_training), list(step.kept_passing), step.output_bytes),
                ]
                for step in self.steps
            ],
            "tensors": list(self.tensors),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Flow:
        height, width = data["image_size"]
        steps = tuple(
            FlowStep(module, tuple(inputs), tuple(parameters), tuple(training), tuple(passing), output)
            for module, inputs, parameters, training, passing, output in data["steps"]
        )
        return cls((height, width), steps, tuple(data["tensors"]))
