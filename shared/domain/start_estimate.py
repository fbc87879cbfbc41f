"""When waiting jobs will start: pure, (slots and when each comes free, the queue in order) -> spans of time.

Slots are handed out in thought, in the queue's order, three times over:

* *earliest*: everything that runs ends at its best pace, and whoever is ahead in the queue takes no time,
  as it may fail at once. So only what runs now counts: the job starts as soon as one node that could run it
  has slots enough.
* *likely* and *latest*: the same nodes' slots form a pool. A job takes the slots of it that come free first,
  for as long as it is likely, or at most, to hold them; it starts no sooner than enough of one node's slots
  come free, and no sooner than whoever is ahead of it in that pool. It counts in every pool that could run
  it, and starts in the one that is first.

This is coarser than the scheduler, on purpose. To simulate its choice of nodes step by step would be no more
exact, as no run's length is known to the second, and it would jump: with a best fit, a job that runs longer
may let another start earlier. Here the more that is held, and the longer, the later is every start. Pools
are sorted times, of which a job replaces the smallest by larger ones: if one such list is nowhere below
another, it is not after the next job either. All else is `min` over nodes, and `max`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from shared.domain.cluster import Node, Waiting, could_ever_run
from shared.domain.time_left import Span

Kind = tuple[str, int, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class NodeSlots:
    """A node, and when each of its slots comes free, from now on."""

    node: Node
    frees: tuple[Span, ...]


@dataclass(frozen=True)
class Ahead:
    """A waiting job, and how long it will hold its slots. `is_barred`: its team may not hold more for now."""

    job: Waiting
    holds: Span
    is_barred: bool = False


def estimate_starts(nodes: Sequence[NodeSlots], queue: Sequence[Ahead]) -> dict[str, Span | None]:
    """Job id -> when it starts, in seconds from now. `queue` is in the order of turns.

    None: no node could run it, or it asks for several nodes; it keeps nobody waiting. Of a job that is
    barred nobody can say when it starts, as that is not a matter of slots; it keeps nobody waiting either.
    """
    earliest = _Pools(nodes, lambda span: span.earliest)
    likely = _Pools(nodes, lambda span: _known(span.likely))
    latest = _Pools(nodes, lambda span: _known(span.latest))
    found: dict[str, Span | None] = {}
    for ahead in queue:
        job = ahead.job
        kinds = earliest.able(job) if job.nodes == 1 else []
        if not kinds:
            found[job.id] = None
            continue
        soon = min(earliest.pools[kind].one_node(job.devices_per_node) for kind in kinds)
        if ahead.is_barred:
            found[job.id] = Span(soon, None, None)
            continue
        middle = likely.take(kinds, job.devices_per_node, _known(ahead.holds.likely))
        late = latest.take(kinds, job.devices_per_node, _known(ahead.holds.latest))
        # A bound may be known where a pace is not, and then come before it.
        told = None if math.isinf(middle) else min(middle, late)
        found[job.id] = Span(soon, told, None if math.isinf(late) else late)
    return found


@dataclass
class _Pool:
    """Like nodes' slots: when each comes free, by node and all together."""

    nodes: list[list[float]] = field(default_factory=list)
    slots: list[float] = field(default_factory=list)
    last_start: float = 0.0
    _one_node: dict[int, float] = field(default_factory=dict)

    def one_node(self, devices: int) -> float:
        """When the first node has so many slots free, if nobody takes any before."""
        if devices not in self._one_node:
            self._one_node[devices] = min(frees[devices - 1] for frees in self.nodes)
        return self._one_node[devices]

    def take(self, devices: int, holds: float) -> float:
        """Hand so many slots to a job for so long; when it starts."""
        taken = [heappop(self.slots) for _ in range(devices)]
        start = max(taken[-1], self.one_node(devices), self.last_start)
        for _ in range(devices):
            heappush(self.slots, start + holds)
        self.last_start = start
        return start


class _Pools:
    """Every kind of node, under one assumption of how long things take."""

    def __init__(self, nodes: Sequence[NodeSlots], pick: Callable[[Span], float]) -> None:
        self.pools: dict[Kind, _Pool] = defaultdict(_Pool)
        self._examples: dict[Kind, Node] = {}
        for one in nodes:
            kind = (one.node.accelerator, len(one.frees), one.node.models)
            times = sorted(pick(span) for span in one.frees)
            self.pools[kind].nodes.append(times)
            self.pools[kind].slots += times
            self._examples[kind] = one.node
        for pool in self.pools.values():
            heapify(pool.slots)

    def able(self, job: Waiting) -> list[Kind]:
        """The kinds of nodes that could run it."""
        return [kind for kind, node in self._examples.items() if could_ever_run(job, node)]

    def take(self, kinds: Sequence[Kind], devices: int, holds: float) -> float:
        """Hand it slots in each of its pools; when the first of them is ready."""
        return min(self.pools[kind].take(devices, holds) for kind in kinds)


def _known(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
