"""What training a part of a network needs of its flow: steps with backward, memory, and the fixed prefix."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from shared.domain.flow import Flow, FlowStep, Varies


@dataclass(frozen=True)
class FlowNeeds:
    """What one phase of a freeze plan makes of a flow. All bytes are for one sample, in float32.

    `backward` are the steps that need backward: they read a parameter that trains, or the result of a step
    that needs backward. `kept_bytes` is what all of them keep, each tensor counted once. `transient_bytes` is
    the most that the steps without backward hold at once.

    `fixed` are the steps whose results are the same for the same picture in every epoch, and `edge` those of
    them whose results other steps read, or nobody: with the `edge_bytes` of these in store, the fixed steps
    need not run again.
    """

    backward: frozenset[int]
    kept_bytes: int
    transient_bytes: int
    fixed: frozenset[int]
    edge: tuple[int, ...]
    edge_bytes: int


def flow_needs(flow: Flow, trainable: Collection[str], still: Collection[str]) -> FlowNeeds:
    """What training `trainable` (canonical names of parameters) needs, with the modules `still` in eval mode.

    `still` holds every such module's own path, as `PlanPhase.still` does.
    """
    trained, in_eval = frozenset(trainable), frozenset(still)
    backward = _needing_backward(flow, trained)
    fixed = _fixed(flow, trained, in_eval)
    edge = _edge(flow, fixed)
    return FlowNeeds(
        backward=backward,
        kept_bytes=sum(flow.tensors[tensor] for tensor in kept_tensors(flow, trained, backward)),
        transient_bytes=_transient_bytes(flow, backward),
        fixed=fixed,
        edge=edge,
        edge_bytes=sum(flow.steps[number].output_bytes for number in edge),
    )


def kept_tensors(flow: Flow, trained: frozenset[str], backward: frozenset[int]) -> frozenset[int]:
    """Which tensors are kept when `trained` train and the steps `backward` need backward for it."""
    return frozenset(
        kept.tensor
        for number in backward
        for kept in flow.steps[number].kept
        if not trained.isdisjoint(kept.parameters) or not backward.isdisjoint(kept.inputs)
    )


def _needing_backward(flow: Flow, trained: frozenset[str]) -> frozenset[int]:
    needing: set[int] = set()
    for number, step in enumerate(flow.steps):
        if not trained.isdisjoint(step.parameters) or not needing.isdisjoint(step.inputs):
            needing.add(number)
    return frozenset(needing)


def _fixed(flow: Flow, trained: frozenset[str], in_eval: frozenset[str]) -> frozenset[int]:
    fixed: set[int] = set()
    for number, step in enumerate(flow.steps):
        reads_fixed = fixed.issuperset(step.inputs) and fixed.issuperset(step.detached)
        if reads_fixed and trained.isdisjoint(step.parameters) and _is_constant(step, in_eval):
            fixed.add(number)
    return frozenset(fixed)


def _is_constant(step: FlowStep, in_eval: frozenset[str]) -> bool:
    return step.varies is Varies.NEVER or (step.varies is Varies.TRAINING and step.module in in_eval)


def _edge(flow: Flow, fixed: frozenset[int]) -> tuple[int, ...]:
    readers = _readers(flow)
    return tuple(n for n in sorted(fixed) if not readers[n] or not fixed.issuperset(readers[n]))


def _transient_bytes(flow: Flow, backward: frozenset[int]) -> int:
    """Results of steps without backward live until they were read for the last time."""
    last_read = [max(readers, default=len(flow.steps)) for readers in _readers(flow)]
    most = alive = 0
    dying: dict[int, int] = {}
    for number, step in enumerate(flow.steps):
        if number not in backward:
            most = max(most, alive + step.working_bytes)
            alive += step.output_bytes
            dying[last_read[number]] = dying.get(last_read[number], 0) + step.output_bytes
        alive -= dying.pop(number, 0)
    return most


def _readers(flow: Flow) -> list[list[int]]:
    """For each step, the later ones that read its result."""
    readers: list[list[int]] = [[] for _ in flow.steps]
    for number, step in enumerate(flow.steps):
        for read in _read(step):
            readers[read].append(number)
    return readers


def _read(step: FlowStep) -> Iterator[int]:
    yield from step.inputs
    yield from step.detached
