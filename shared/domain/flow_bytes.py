"""What a phase of a freeze plan makes of a network's flow, in bytes for one sample."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from shared.domain.flow import Flow
from shared.domain.flow_needs import FlowNeeds, kept_tensors
from shared.domain.module_tree import ModuleTree
from shared.domain.recomputed import recomputed

# Autocast leaves these in float32, and what they keep with them.
_FLOAT32_UNDER_AUTOCAST = ("LayerNorm", "GroupNorm")


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """Bytes in float32, and the part of them that stays float32 under autocast."""

    bytes: int = 0
    float32: int = 0

    def __add__(self, other: Held) -> Held:
        return Held(self.bytes + other.bytes, self.float32 + other.float32)


@dataclass(frozen=True, slots=True)
class FlowBytes:
    """Of one sample, in float32.

    `kept` is what the forward keeps for the backward, or the backward has at once where blocks run again.
    `passing` is the most that one step of forward or backward takes beside it, `evaluating` the most that a
    forward without any gradient holds. `half_copied` names the weights of which backward reads a copy in half
    precision, under autocast.
    """

    kept: Held
    passing: int
    evaluating: int
    half_copied: frozenset[str]

    @classmethod
    def of(
        cls,
        tree: ModuleTree,
        flow: Flow,
        trainable: Collection[str],
        needs: FlowNeeds,
        evaluating: int,
        *,
        run_again: bool = False,
    ) -> FlowBytes:
        """`run_again`: blocks run again in the backward instead of keeping what they computed."""
        holding = _Holding(tree, flow, trainable, needs)
        steps = [flow.steps[number] for number in needs.backward]
        # The gradients of a step's result and of what it read are there together.
        gradients = max((step.output_bytes + step.working_bytes for step in steps), default=0)
        read = {name for step in steps for name in step.parameters}
        return cls(
            kept=holding.with_blocks_run_again() if run_again else holding.of_steps(needs.backward),
            passing=max(needs.transient_bytes, gradients),
            evaluating=evaluating,
            half_copied=frozenset(name for name in read if len(tree.shapes[name]) > 1),
        )


class _Holding:
    """Counts what the steps with backward hold until it has come to them."""

    def __init__(self, tree: ModuleTree, flow: Flow, trainable: Collection[str], needs: FlowNeeds) -> None:
        self._tree = tree
        self._flow = flow
        self._backward = needs.backward
        self._kept = kept_tensors(flow, frozenset(trainable), needs.backward)
        self._norms = [n for n in needs.backward if _computes_in_float32(tree, flow.steps[n].module)]
        self._float32 = self._tensors(self._norms)

    def of_steps(self, numbers: Iterable[int]) -> Held:
        """The tensors that these steps keep, each counted once."""
        sizes, tensors = self._flow.tensors, self._tensors(numbers)
        return Held(
            sum(sizes[tensor] for tensor in tensors),
            sum(sizes[tensor] for tensor in tensors & self._float32),
        )

    def with_blocks_run_again(self) -> Held:
        """What blocks read, what is kept outside of them, and what the largest block keeps while it runs."""
        found = recomputed(self._tree, self._flow, self._backward)
        largest = max((self.of_steps(part) for part in found.parts), default=Held())
        return self.of_steps(found.outside) + self._results(found.inputs) + largest

    def _results(self, numbers: Iterable[int]) -> Held:
        steps, read_by_norms = self._flow.steps, {i for n in self._norms for i in self._flow.steps[n].inputs}
        sizes = [(steps[number].output_bytes, number in read_by_norms) for number in numbers]
        return Held(sum(size for size, _ in sizes), sum(size for size, is_float32 in sizes if is_float32))

    def _tensors(self, numbers: Iterable[int]) -> frozenset[int]:
        steps = self._flow.steps
        return self._kept & {kept.tensor for number in numbers for kept in steps[number].kept}


def _computes_in_float32(tree: ModuleTree, module: str) -> bool:
    return tree.by_path[module].class_name.startswith(_FLOAT32_UNDER_AUTOCAST)
