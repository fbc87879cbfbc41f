"""Holds each step to its word: what it does not train is, bit for bit, the same after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worker.training.errors import TrainingFailed
from worker.training.freezing import FrozenPart, named_tensors
from worker.training.proofs import combined, digest

# Of a width that any type's bytes come in, so that a NaN equals itself and 0.0 is not -0.0.
_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Guard:
    """Copies of the tensors that a step must leave as they are, on their own device, compared after it.

    A copy lasts until a step moves what it is of: a tensor is copied once a round at most, and what no step
    moves once in all. Together they take as much memory as the network at most.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._copies: dict[str, Tensor] = {}

    def begin(self, part: FrozenPart) -> None:
        """Before a step that must not move `part`."""
        tensors = named_tensors(self._model)
        missing = part.names - self._copies.keys()
        self._copies |= {name: tensors[name].detach().clone() for name in missing}

    def end(self, part: FrozenPart, step_name: str, number: int) -> None:
        """After it. Raises TrainingFailed, naming the tensors and the step, where any of them moved."""
        tensors = named_tensors(self._model)
        moved = [name for name in sorted(part.names) if not _same_bits(tensors[name], self._copies[name])]
        if moved:
            raise TrainingFailed(
                f"the training step {step_name!r} moved {len(moved)} tensors that are frozen in it, at step "
                f"{number}: {', '.join(moved[:5])}{' ...' if len(moved) > 5 else ''}",
                code="frozen_part_moved",
                hint="the method of its loss changes them itself; only the optimizer may, and only what the "
                "step trains",
            )
        self._copies = {name: copy for name, copy in self._copies.items() if name in part.names}

    def digest_before(self, part: FrozenPart) -> str:
        """The hash over `part` as it was when the step began."""
        return combined({name: digest(self._copies[name]) for name in part.names})


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    integers = _AS_INTEGERS.get(one.element_size())
    if integers is None or one.is_quantized:
        return torch.equal(one, other)
    return torch.equal(one.detach().view(integers), other.view(integers))
