"""The part of a network that computes the same for a picture in every epoch, in terms of its modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from shared.domain.flow import Flow
from shared.domain.flow_needs import FlowNeeds
from shared.domain.plan_figures import PrefixPart


def prefix_part(flow: Flow, needs: FlowNeeds, n_elements: Mapping[str, int]) -> PrefixPart:
    """The part that `needs` says is fixed. `n_elements` tells how many numbers each parameter holds."""
    steps = Counter(path for step in flow.steps for path in _with_ancestors(step.module))
    fixed = Counter(path for number in needs.fixed for path in _with_ancestors(flow.steps[number].module))
    read_later = {
        name for i, step in enumerate(flow.steps) if i not in needs.fixed for name in step.parameters
    }
    read = {name for number in needs.fixed for name in flow.steps[number].parameters}
    put_out = sum(flow.steps[number].output_bytes for number in needs.fixed)
    return PrefixPart(
        modules=tuple(_topmost_whole(flow, steps, fixed)),
        until=_until(flow, needs, fixed),
        n_parameters=sum(n_elements[name] for name in read - read_later),
        share_of_forward=round(put_out / (sum(step.output_bytes for step in flow.steps) or 1), 6),
        output_bytes_per_sample=needs.edge_bytes,
    )


def _topmost_whole(flow: Flow, steps: Counter[str], fixed: Counter[str]) -> Iterator[str]:
    """The paths of which each step is fixed, without those below another, in the order of execution."""
    found: set[str] = set()
    for step in flow.steps:
        whole = next((path for path in _with_ancestors(step.module) if fixed[path] == steps[path]), None)
        if whole is not None and whole not in found:
            found.add(whole)
            yield whole


def _until(flow: Flow, needs: FlowNeeds, fixed: Counter[str]) -> str | None:
    """The topmost module without a fixed step in which the first step lies that is not fixed."""
    first = next((step for number, step in enumerate(flow.steps) if number not in needs.fixed), None)
    if first is None:
        return None
    _, *below = _with_ancestors(first.module)
    return next((path for path in below if not fixed[path]), first.module)


def _with_ancestors(path: str) -> Iterator[str]:
    """The root first, the path itself last."""
    yield ""
    parts = path.split(".") if path else []
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])
