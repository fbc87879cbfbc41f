"""The free slots of a pass: found by shape, taken, and kept for a job that waits for more of them.

Nodes alike in accelerator, size and models are one class, so that a shape of job is compared with classes and
not with each node; within a class the nodes lie in heaps by how many slots they have.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from shared.domain.cluster import Node, Running, Waiting, could_ever_run


class Shape(NamedTuple):
    """All that matters for where a job may run. Jobs of one team and one shape fare alike."""

    devices: int
    accelerator: str
    registered_model: tuple[str, str] | None
    nodes: int

    @classmethod
    def of(cls, job: Waiting) -> Shape:
        return cls(job.devices_per_node, job.accelerator, job.registered_model, job.nodes)


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
        heappush(self._by_room[room], node_id)

    def fullest_with(self, devices: int, room: dict[str, int]) -> tuple[int, str] | None:
        """The least room that is enough, and the first of the nodes that have it."""
        for size in range(devices, len(self._by_room)):
            nodes = self._by_room[size]
            while nodes and room[nodes[0]] != size:
                heappop(nodes)  # it has been given out since
            if nodes:
                return size, nodes[0]
        return None


class Room:
    """What is free on each node, and how much of that is kept."""

    def __init__(self, nodes: Sequence[Node], running: Iterable[Running]) -> None:
        self.free = {node.id: list(node.free_slots) for node in nodes}
        self.kept: defaultdict[str, int] = defaultdict(int)
        self._open = {node.id: len(node.free_slots) for node in nodes}
        self._largest: dict[NodeClass, int] = {}
        self._classes: dict[tuple[str, int, frozenset[tuple[str, str]]], NodeClass] = {}
        self._class_of: dict[str, NodeClass] = {}
        for node in nodes:
            self._sort_in(node)
        self._leaving_in: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        for job in running:
            self._leaving_in[job.node_id].append((0.0 if job.is_leaving else job.remaining_s, job.slots))

    def able(self, job: Waiting) -> list[NodeClass]:
        """The classes whose nodes could run the job if they were empty."""
        return [alike for alike in self._classes.values() if could_ever_run(job, alike.like)]

    def find(self, devices: int, classes: Iterable[NodeClass]) -> tuple[str, str] | None:
        """(node, accelerator): the fullest node that has so many slots open, the first by its id."""
        found = [
            (*fit, alike.accelerator)
            for alike in classes
            if (fit := alike.fullest_with(devices, self._open)) is not None
        ]
        return min(found)[1:] if found else None

    def take(self, node_id: str, devices: int) -> tuple[int, ...]:
        """Give out the first free slots of a node that `find` has named."""
        free = self.free[node_id]
        slots = tuple(free[:devices])
        del free[:devices]
        self._largest.pop(self._class_of[node_id], None)
        self._reopen(node_id)
        return slots

    def keep(self, node_id: str, devices: int) -> int:
        """Let nobody else have so many of the node's slots, now or later. Returns how many are free."""
        was_open = self._open[node_id]
        self.kept[node_id] += devices
        self._reopen(node_id)
        return was_open - self._open[node_id]

    def largest_block(self, classes: Iterable[NodeClass]) -> int:
        """The most slots that are free on one of these nodes, kept ones too."""
        return max((self._largest_of(alike) for alike in classes), default=0)

    def soonest(self, devices: int, nodes: Collection[str]) -> str | None:
        """On which node so many slots are free first, as far as can be guessed; None of none."""
        return min(
            nodes, key=lambda id: (self._free_in_s(id, devices), -len(self.free[id]), id), default=None
        )

    def _largest_of(self, alike: NodeClass) -> int:
        found = self._largest.get(alike)
        if found is None:
            found = self._largest[alike] = max(len(self.free[id]) for id in alike.nodes)
        return found

    def _free_in_s(self, node_id: str, devices: int) -> float:
        room = len(self.free[node_id]) - self.kept[node_id]
        if room >= devices:
            return 0.0
        for remaining_s, slots in sorted(self._leaving_in[node_id]):
            room += slots
            if room >= devices:
                return remaining_s
        return math.inf

    def _sort_in(self, node: Node) -> None:
        key = (node.accelerator, node.n_slots, node.models)
        alike = self._classes.get(key)
        if alike is None:
            alike = self._classes[key] = NodeClass(node)
        alike.nodes.append(node.id)
        if node.takes_work:
            alike.working.append(node.id)
        alike.put(node.id, len(node.free_slots))
        self._class_of[node.id] = alike

    def _reopen(self, node_id: str) -> None:
        room = max(0, len(self.free[node_id]) - self.kept[node_id])
        self._open[node_id] = room
        self._class_of[node_id].put(node_id, room)
