"""The free slots of a pass: found by shape, taken, and kept for a job that waits for more of them.

Nodes alike in accelerator, size, memory and models are one class, so that a shape of job is compared with
classes and not with each node; within a class the nodes are sorted by how many slots they have open.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest
from itertools import chain
from typing import NamedTuple

from shared.domain.cluster import Node, Running, Waiting, could_ever_run, holds

_GIB = 2**30


class Shape(NamedTuple):
    """All that matters for where a job may run. Jobs of one team and one shape fare alike."""

    devices: int
    accelerator: str
    registered_model: tuple[str, str] | None
    nodes: int
    memory_bytes: int | None = None

    @classmethod
    def of(cls, job: Waiting, sizes: Sequence[int] = ()) -> Shape:
        """`sizes`: the `memory_sizes` of the nodes, so that jobs which differ by some bytes are alike."""
        memory_bytes = _rounded_up(job.memory_bytes, sizes)
        return cls(job.devices_per_node, job.accelerator, job.registered_model, job.nodes, memory_bytes)

    @property
    def slots(self) -> int:
        """On all of its nodes together."""
        return self.devices * self.nodes


def memory_sizes(nodes: Iterable[Node]) -> list[int]:
    """How much memory the devices of some node have: each size once, the smallest first."""
    return sorted({node.memory_bytes for node in nodes if node.memory_bytes is not None})


def _rounded_up(memory_bytes: int | None, sizes: Sequence[int]) -> int | None:
    """To a whole GiB, but not beyond the next of `sizes`: what held it before holds it still.

    None where all of them hold it, as if it were not known: most jobs are alike then.
    """
    if memory_bytes is None or not sizes or memory_bytes <= sizes[0]:
        return None
    whole = -(-memory_bytes // _GIB) * _GIB
    at = bisect_left(sizes, memory_bytes)
    return min(whole, sizes[at]) if at < len(sizes) else whole


class NodeClass:
    """Nodes that no job can tell apart but by their free slots."""

    def __init__(self, like: Node) -> None:
        self.like = like
        self.accelerator = like.accelerator
        self.nodes: list[str] = []
        self.working: list[str] = []
        """Those of them that may be given work."""
        self._by_room: list[list[str]] = [[] for _ in range(like.n_slots + 1)]

    def put(self, node_id: str, room: int) -> None:
        insort(self._by_room[room], node_id)

    def take_out(self, node_id: str, room: int) -> None:
        nodes = self._by_room[room]
        del nodes[bisect_left(nodes, node_id)]

    def fullest_with(self, devices: int, n_nodes: int) -> list[tuple[int, str]]:
        """(room, node) of so many that have enough, or of fewer: the least room first, then by their ids."""
        found: list[tuple[int, str]] = []
        for room in range(devices, len(self._by_room)):
            if nodes := self._by_room[room]:
                found += [(room, node) for node in nodes[: n_nodes - len(found)]]
                if len(found) == n_nodes:
                    break
        return found


Able = Mapping[str, Sequence[NodeClass]]
"""Accelerator type -> the classes of nodes that could run a shape of job."""


class Found(NamedTuple):
    """Nodes for all parts of a job, of one accelerator type."""

    accelerator: str
    node_ids: tuple[str, ...]


class Room:
    """What is free on each node, and how much of that is kept."""

    def __init__(self, nodes: Sequence[Node], running: Iterable[Running]) -> None:
        self.free = {node.id: list(node.free_slots) for node in nodes}
        self.left = {node.id: len(node.free_slots) for node in nodes}
        """How many free slots of each node are not kept; below zero where more are kept than are free."""
        self._blocks: dict[NodeClass, list[int]] = {}
        self._classes: dict[tuple[object, ...], NodeClass] = {}
        self._class_of: dict[str, NodeClass] = {}
        self._sizes = memory_sizes(nodes)
        self._fits: dict[tuple[object, ...], list[NodeClass]] = {}
        self._able: dict[tuple[object, ...], dict[str, list[NodeClass]]] = {}
        for node in nodes:
            self._sort_in(node)
        self._leaving_in: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        for job in running:
            for node_id, slots in job.held:
                self._leaving_in[node_id].append((0.0 if job.is_leaving else job.remaining_s, slots))

    def able(self, shape: Shape) -> dict[str, list[NodeClass]]:
        """By accelerator type, in their order, the classes whose nodes could run the job if they were empty.

        Of types with fewer such nodes than it asks for there is none.
        """
        # Of memory it matters only between which sizes it lies: there are few, and many estimates.
        size = None if shape.memory_bytes is None else bisect_left(self._sizes, shape.memory_bytes)
        wish = (*shape[:4], size)
        found = self._able.get(wish)
        if found is None:
            able = self._by_type(shape)
            found = {type: able[type] for type in sorted(able) if _n_nodes(able[type]) >= shape.nodes}
            self._able[wish] = found
        return found

    def most_able(self, shape: Shape) -> int:
        """How many nodes of one accelerator type could run a part of the job, were they empty; at most."""
        return max((_n_nodes(classes) for classes in self._by_type(shape).values()), default=0)

    def too_small(self, shape: Shape) -> list[NodeClass]:
        """The classes that could run a part of such a job, had their devices its memory."""
        if shape.memory_bytes is None:
            return []
        return [alike for alike in self._but_for_memory(shape) if not holds(alike.like, shape.memory_bytes)]

    def n_out_of_reach(self, shape: Shape) -> int:
        """How many nodes could run a part of the gang, if others reached them."""
        alone = _like(shape._replace(nodes=1))
        classes = self._classes.values() if shape.nodes > 1 else ()
        return _n_nodes(
            alike for alike in classes if alike.like.is_out_of_reach and could_ever_run(alone, alike.like)
        )

    def find(self, shape: Shape, able: Able) -> Found | None:
        """As many nodes of one type as it asks for that have so many slots open, the fullest first."""
        found = [
            (fullest[-1], fullest, type)
            for type, classes in able.items()
            if len(fullest := _fullest(shape, classes)) == shape.nodes
        ]
        if not found:
            return None
        _, fullest, type = min(found)
        return Found(type, tuple(node_id for _, node_id in fullest))

    def take(self, node_id: str, devices: int) -> tuple[int, ...]:
        """Give out the first free slots of a node that `find` has named."""
        free = self.free[node_id]
        slots = tuple(free[:devices])
        del free[:devices]
        self._blocks.pop(self._class_of[node_id], None)
        self._leave_less(node_id, devices)
        return slots

    def keep(self, node_id: str, devices: int) -> int:
        """Let nobody else have so many of the node's slots, now or later. Returns how many are free."""
        return self._leave_less(node_id, devices)

    def largest_block(self, classes: Iterable[NodeClass]) -> int:
        """The most slots that are free on one of these nodes, kept ones too."""
        return max((self._blocks_of(alike)[-1] for alike in classes), default=0)

    def n_with(self, devices: int, classes: Iterable[NodeClass]) -> int:
        """How many of these nodes have so many slots free, kept ones too."""
        blocks = [self._blocks_of(alike) for alike in classes]
        return sum(len(free) - bisect_left(free, devices) for free in blocks)

    def soonest(self, shape: Shape, able: Able) -> Found | None:
        """On which nodes so many slots are free first, as far as is known, else where the fewest are missing.

        Last come those where what runs there does not hold enough of them: a slot that is dirty, or has a GPU
        that is not fit for work, may stay so for days, and be the only one that is missing.

        While these are kept, both only get better there: later passes name them again, or others that come
        free sooner or have fewer missing. None: there are too few nodes.
        """
        found = []
        for type, classes in able.items():
            nodes = [node_id for alike in classes for node_id in alike.working]
            ranked = ((*self._comes_free(id, shape.devices), self._missing(id, shape), id) for id in nodes)
            first = nsmallest(shape.nodes, ranked)
            if len(first) == shape.nodes:
                found.append((first[-1][:2], sum(missing for *_, missing, _ in first), first, type))
        if not found:
            return None
        _, _, first, type = min(found)
        return Found(type, tuple(node_id for *_, node_id in first))

    def _by_type(self, shape: Shape) -> Mapping[str, list[NodeClass]]:
        """The classes whose nodes could run a part of the job if they were empty."""
        able: defaultdict[str, list[NodeClass]] = defaultdict(list)
        for alike in self._but_for_memory(shape):
            if holds(alike.like, shape.memory_bytes):
                able[alike.accelerator].append(alike)
        return able

    def _but_for_memory(self, shape: Shape) -> list[NodeClass]:
        """The same, and those without the memory for it: there are few such wishes, and many estimates."""
        wish = (shape.devices, shape.accelerator, shape.registered_model, shape.nodes > 1)
        found = self._fits.get(wish)
        if found is None:
            job = _like(shape)
            found = [alike for alike in self._classes.values() if could_ever_run(job, alike.like)]
            self._fits[wish] = found
        return found

    def _blocks_of(self, alike: NodeClass) -> list[int]:
        """How many slots each of its nodes has free, the fewest first."""
        found = self._blocks.get(alike)
        if found is None:
            found = self._blocks[alike] = sorted(len(self.free[id]) for id in alike.nodes)
        return found

    def _missing(self, node_id: str, shape: Shape) -> int:
        """How many slots too few are free there; below zero where some are left over."""
        return shape.devices - self.left[node_id]

    def _comes_free(self, node_id: str, devices: int) -> tuple[float, bool]:
        """In how many seconds so many slots are free there, and whether no end of a job is enough for it."""
        room = self.left[node_id]
        if room >= devices:
            return 0.0, False
        for remaining_s, slots in sorted(self._leaving_in[node_id]):
            room += slots
            if room >= devices:
                return remaining_s, False
        return math.inf, True

    def _sort_in(self, node: Node) -> None:
        key = (node.accelerator, node.n_slots, node.memory_bytes, node.models, node.is_out_of_reach)
        alike = self._classes.get(key)
        if alike is None:
            alike = self._classes[key] = NodeClass(node)
        alike.nodes.append(node.id)
        if node.takes_work:
            alike.working.append(node.id)
        alike.put(node.id, len(node.free_slots))
        self._class_of[node.id] = alike

    def _leave_less(self, node_id: str, devices: int) -> int:
        """By so many slots; returns how many of these were open."""
        alike, was_open = self._class_of[node_id], max(0, self.left[node_id])
        self.left[node_id] -= devices
        is_open = max(0, self.left[node_id])
        alike.take_out(node_id, was_open)
        alike.put(node_id, is_open)
        return was_open - is_open


def _fullest(shape: Shape, classes: Sequence[NodeClass]) -> list[tuple[int, str]]:
    """(room, node) of as many nodes as it asks for, the fullest first; fewer where there are too few."""
    each = [alike.fullest_with(shape.devices, shape.nodes) for alike in classes]
    return each[0] if len(each) == 1 else sorted(chain.from_iterable(each))[: shape.nodes]


def _like(shape: Shape) -> Waiting:
    """A job of this shape, whatever memory it takes."""
    return Waiting(
        "",
        (0, 0.0, ""),
        shape.devices,
        shape.accelerator,
        shape.nodes,
        registered_model=shape.registered_model,
    )


def n_working(classes: Iterable[NodeClass]) -> int:
    """How many of the nodes may be given work."""
    return sum(len(alike.working) for alike in classes)


def _n_nodes(classes: Iterable[NodeClass]) -> int:
    return sum(len(alike.nodes) for alike in classes)
