"""Gradient checkpointing as data: which parts of a network run again in the backward, and what is kept then.

The trainer makes the same parts of the same blocks (`recompute` in worker/training/recomputation.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isqrt

from shared.domain.flow import Flow
from shared.domain.module_tree import ModuleTree


@dataclass(frozen=True)
class Recomputed:
    """Of the steps that need backward: those in each part that runs again, and those in none.

    `inputs` are the steps outside of such a part whose results it reads: these are kept until it runs again.
    """

    parts: tuple[frozenset[int], ...]
    outside: frozenset[int]
    inputs: frozenset[int]


def recomputed(tree: ModuleTree, flow: Flow, backward: Collection[int]) -> Recomputed:
    """What runs again for the steps `backward`. A part that no gradient passes does not: it keeps nothing."""
    part_of = _part_of_modules(tree)
    members: dict[str, set[int]] = {}
    for number, step in enumerate(flow.steps):
        if step.module in part_of:
            members.setdefault(part_of[step.module], set()).add(number)
    again = [steps for steps in members.values() if not steps.isdisjoint(backward)]
    parts = tuple(frozenset(steps.intersection(backward)) for steps in again)
    inputs = {read for steps in again for read in _read(flow, steps) if read not in steps}
    return Recomputed(parts, frozenset(backward).difference(*parts), frozenset(inputs))


def _read(flow: Flow, steps: Iterable[int]) -> Iterator[int]:
    for number in steps:
        yield from flow.steps[number].inputs
        yield from flow.steps[number].detached


def parts_that_run_again(tree: ModuleTree) -> Mapping[str, tuple[str, ...]]:
    """By name, the module paths of each part: a block with modules inside, or a run of single layers."""
    parents = {module.path.rpartition(".")[0] for module in tree.modules if module.path}
    parts: dict[str, tuple[str, ...]] = {block: (block,) for block in tree.blocks if block in parents}
    single = [block for block in tree.blocks if block not in parents]
    for parent in dict.fromkeys(block.rpartition(".")[0] for block in single):
        parts |= _runs(tree, parent, parents)
    return parts


def _runs(tree: ModuleTree, parent: str, parents: Collection[str]) -> dict[str, tuple[str, ...]]:
    """A Sequential of layers alone is cut before about every square root of those that have parameters."""
    layers = [m for m in tree.modules if m.path and m.path.rpartition(".")[0] == parent]
    is_row = tree.by_path[parent].class_name == "Sequential"
    if not is_row or any(layer.path in parents for layer in layers):
        return {}
    starts = [place for place, layer in enumerate(layers) if layer.parameters]
    starts = starts[:: max(2, isqrt(len(starts)))]
    ends = [*starts[1:], len(layers)]
    return {
        f"{parent}.{start}-{end - 1}": tuple(layer.path for layer in layers[start:end])
        for start, end in zip(starts, ends, strict=True)
    }


def _part_of_modules(tree: ModuleTree) -> dict[str, str]:
    """The part in which a module lies; nothing of one in none."""
    of_path = {path: name for name, paths in parts_that_run_again(tree).items() for path in paths}
    found: dict[str, str] = {}
    for module in tree.modules:
        part = of_path.get(module.path) or found.get(module.path.rpartition(".")[0])
        if part is not None:
            found[module.path] = part
    return found
