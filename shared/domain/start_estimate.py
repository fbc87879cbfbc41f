"""When waiting jobs will start: pure, (slots and when each comes free, the queue in order) -> spans of time.

Slots are handed out in thought, in the queue's order, three times over:

* *earliest*: everything that runs ends at its best pace, and whoever is ahead in the queue takes no time,
  as it may fail at once. So only what runs now counts: the job starts as soon as one node that could run it
  has slots enough, a gang as soon as so many nodes of one accelerator have.
* *likely* and *latest*: like nodes' slots form a pool. A job takes the slots of it that come free first,
  for as long as it is likely, or at most, to hold them; it starts no sooner than enough of one node's slots
  come free, and no sooner than whoever is ahead of it in that pool. It counts in every pool that could run
  it, and starts in the one that is first. A gang takes so many from each pool as all of its nodes need that
  may lie there, and starts with the last of those pools of one accelerator that together have its nodes.

This is coarser than the scheduler, on purpose. To simulate its choice of nodes step by step would be no more
exact, as no run's length is known to the second, and it would jump: with a best fit, a job that runs longer
may let another start earlier. Here the more that is held, and the longer, the later is every start. Pools
are sorted times, of which a job replaces the smallest by larger ones: if one such list is nowhere below
another, it is not after the next job either. All else is the n-th smallest over nodes or pools, and `max`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from shared.domain.cluster import Node, Waiting, could_ever_run
from shared.domain.time_left import Span

Kind = tuple[str, int, int | None, frozenset[tuple[str, str]], bool]


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

    None: there are not the nodes to run it; it keeps nobody waiting. Of a job that is barred nobody can say
    when it starts, as that is not a matter of slots; it keeps nobody waiting either.
    """
    earliest = _Pools(nodes, lambda span: span.earliest)
    likely = _Pools(nodes, lambda span: _known(span.likely))
    latest = _Pools(nodes, lambda span: _known(span.latest))
    found: dict[str, Span | None] = {}
    for ahead in queue:
        job = ahead.job
        able = earliest.able(job)
        if not able:
            found[job.id] = None
            continue
        soon = earliest.soonest(able, job)
        if ahead.is_barred:
            found[job.id] = Span(soon, None, None)
            continue
        middle = likely.take(able, job, _known(ahead.holds.likely))
        late = latest.take(able, job, _known(ahead.holds.latest))
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
    _by_node: dict[int, list[float]] = field(default_factory=dict)

    def by_node(self, devices: int) -> list[float]:
        """When each node has so many slots free, if nobody takes any before; the first one first."""
        if devices not in self._by_node:
            self._by_node[devices] = sorted(frees[devices - 1] for frees in self.nodes)
        return self._by_node[devices]

    def hand_out(self, devices: int, n_nodes: int) -> float:
        """Take so many slots for each of so many nodes out of it; when a job could start on them."""
        taken = [heappop(self.slots) for _ in range(devices * n_nodes)]
        return max(taken[-1], self.by_node(devices)[n_nodes - 1], self.last_start)

    def give_back(self, slots: int, started: float, holds: float) -> None:
        for _ in range(slots):
            heappush(self.slots, started + holds)
        self.last_start = started


class _Pools:
    """Every kind of node, under one assumption of how long things take."""

    def __init__(self, nodes: Sequence[NodeSlots], pick: Callable[[Span], float]) -> None:
        self.pools: dict[Kind, _Pool] = defaultdict(_Pool)
        self._examples: dict[Kind, Node] = {}
        for one in nodes:
            like = one.node
            kind = (
                like.accelerator,
                len(one.frees),
                like.memory_bytes,
                like.models,
                like.is_out_of_reach,
            )
            times = sorted(pick(span) for span in one.frees)
            self.pools[kind].nodes.append(times)
            self.pools[kind].slots += times
            self._examples[kind] = one.node
        for pool in self.pools.values():
            heapify(pool.slots)

    def able(self, job: Waiting) -> list[list[Kind]]:
        """The kinds of nodes that could run it, by accelerator, where there are as many as it asks for."""
        able: dict[str, list[Kind]] = defaultdict(list)
        for kind, node in self._examples.items():
            if could_ever_run(job, node):
                able[node.accelerator].append(kind)
        return [kinds for kinds in able.values() if self._n_nodes(kinds) >= job.nodes]

    def soonest(self, able: Sequence[Sequence[Kind]], job: Waiting) -> float:
        """When so many nodes of one accelerator have slots enough, if nobody takes any before."""
        return min(self._nth_node(kinds, job) for kinds in able)

    def take(self, able: Sequence[Sequence[Kind]], job: Waiting, holds: float) -> float:
        """Hand it slots in each of its pools; when those of one accelerator that it needs are ready."""
        return min(self._take(kinds, job, holds) for kinds in able)

    def _take(self, kinds: Sequence[Kind], job: Waiting, holds: float) -> float:
        """In the pools of one accelerator: so many nodes in each as it asks for, or as there are."""
        n_nodes = {kind: min(job.nodes, len(self.pools[kind].nodes)) for kind in kinds}
        ready = {kind: self.pools[kind].hand_out(job.devices_per_node, n) for kind, n in n_nodes.items()}
        start = _when_enough(sorted((ready[kind], n) for kind, n in n_nodes.items()), job.nodes)
        for kind, n in n_nodes.items():
            self.pools[kind].give_back(job.devices_per_node * n, max(start, ready[kind]), holds)
        return start

    def _nth_node(self, kinds: Sequence[Kind], job: Waiting) -> float:
        firsts = (self.pools[kind].by_node(job.devices_per_node)[: job.nodes] for kind in kinds)
        return sorted(time for first in firsts for time in first)[job.nodes - 1]

    def _n_nodes(self, kinds: Sequence[Kind]) -> int:
        return sum(len(self.pools[kind].nodes) for kind in kinds)


def _when_enough(ready: Sequence[tuple[float, int]], n_nodes: int) -> float:
    """`ready`: at which times so many nodes each are, in their order; when there are `n_nodes` together."""
    times = [time for time, n in ready for _ in range(n)]
    return times[n_nodes - 1]


def _known(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
