"""Gradient checkpointing: blocks that run again in the backward instead of keeping what they computed.

A block runs again only where a gradient passes it; a frozen prefix keeps nothing anyway. The second run sees
what the first one saw, random draws and buffers included, and leaves no trace, so that weights come out with
the same bits as without.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from worker.training.errors import TrainingFailed

Buffers = dict[str, Tensor | None]


class Recomputed:
    """A block's forward. `times` counts how often a gradient had to pass, so that the block ran again."""

    def __init__(self, block: nn.Module) -> None:
        self._block = block
        self._forward = block.forward
        self.times = 0

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled() or not self._passes_gradient([*inputs, *named.values()]):
            return self._forward(*inputs, **named)
        self.times += 1
        # A list is kept as it is now: DenseNet's grows behind the layer that it was given to.
        kept = [list(value) if isinstance(value, list) else value for value in inputs]
        forward = partial(self._forward, **named)
        return checkpoint(forward, *kept, use_reentrant=False, context_fn=self._contexts)

    def _passes_gradient(self, inputs: Sequence[Any]) -> bool:
        tensors = [*self._block.parameters(), *_tensors(inputs)]
        return any(tensor.requires_grad for tensor in tensors)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _Again(self._block)


class _Again(AbstractContextManager[None]):
    """Made before a block's forward, entered for the second one, which then starts from the same state.

    It works on copies of the buffers, for what it puts into them must not count twice: BatchNorm's statistics
    move once a step. Buffers of modules in eval mode do not move. torch itself puts its own generators back.
    """

    def __init__(self, block: nn.Module) -> None:
        self._of = [module._buffers for module in block.modules() if module.training]
        self._before = [_copied(buffers) for buffers in self._of]
        self._drawn = random.getstate(), np.random.get_state()

    def __enter__(self) -> None:
        self._meanwhile = [dict(buffers) for buffers in self._of]
        self._drawn_meanwhile = random.getstate(), np.random.get_state()
        for buffers, before in zip(self._of, self._before, strict=True):
            buffers.update(_copied(before))
        _set_generators(*self._drawn)

    def __exit__(self, *_: object) -> None:
        for buffers, meanwhile in zip(self._of, self._meanwhile, strict=True):
            buffers.update(meanwhile)
        _set_generators(*self._drawn_meanwhile)


def recompute(model: nn.Module, blocks: Sequence[str]) -> Mapping[str, Recomputed]:
    """Makes `blocks` (module paths) of `model` run again in the backward; what was made of them, by name.

    A block that is a single layer would save nothing. Where a Sequential consists of such layers, as in VGG,
    runs of about the square root of their number are made one block each.
    """
    composed = {path: model.get_submodule(path) for path in blocks if _is_composed(model, path)}
    made = {path: _replace_forward(block) for path, block in composed.items()}
    single = [path for path in blocks if path not in composed]
    for path in dict.fromkeys(path.rpartition(".")[0] for path in single):
        parent = model.get_submodule(path)
        if type(parent) is nn.Sequential and not any(True for layer in parent for _ in layer.children()):
            made |= _recompute_in_runs(parent, path)
    return made


def check_has_effect(made: Mapping[str, Recomputed]) -> None:
    """Raises TrainingFailed where trials of every phase ran none of the blocks again."""
    if not any(block.times for block in made.values()):
        why = "no gradient passes a block of it" if made else "none of its blocks has layers inside"
        raise TrainingFailed(
            f"gradient_checkpointing would change nothing for this model: {why}",
            code="no_effect",
            hint="leave it out",
        )


def _is_composed(model: nn.Module, path: str) -> bool:
    return any(True for _ in model.get_submodule(path).children())


def _replace_forward(block: nn.Module) -> Recomputed:
    if not isinstance(block.forward, Recomputed):
        block.forward = Recomputed(block)
    return block.forward


def _recompute_in_runs(sequential: nn.Sequential, path: str) -> dict[str, Recomputed]:
    """Each run begins with a layer that has parameters: one that works in place would change what is kept."""
    layers = list(sequential)
    starts = [place for place, layer in enumerate(layers) if any(True for _ in layer.parameters())]
    starts = starts[:: max(2, isqrt(len(starts)))]
    ends = [*starts[1:], len(layers)]
    runs = {
        f"{path}.{start}-{end - 1}": Recomputed(nn.Sequential(*layers[start:end]))
        for start, end in zip(starts, ends, strict=True)
    }

    def forward(inputs: Tensor) -> Tensor:
        for layer in layers[: starts[0]]:
            inputs = layer(inputs)
        for run in runs.values():
            inputs = run(inputs)
        return inputs

    sequential.forward = forward  # type: ignore[method-assign]  # of this one object
    return runs


def _tensors(values: Any) -> Iterator[Tensor]:
    """Every tensor in nested containers."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _copied(buffers: Buffers) -> Buffers:
    return {name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()}


def _set_generators(of_python: Any, of_numpy: Any) -> None:
    random.setstate(of_python)
    np.random.set_state(of_numpy)
