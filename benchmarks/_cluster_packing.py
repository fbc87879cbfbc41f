"""First-fit-decreasing: how many GPUs a pass could place that had nothing but packing in mind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice

from shared.domain.cluster import Node, Running, Waiting, accelerator_fits
from shared.domain.quota import Books, TeamShare


def first_fit_decreasing(
    nodes: Sequence[Node],
    queue: Sequence[Waiting],
    running: Sequence[Running],
    teams: Mapping[str, TeamShare],
) -> int:
    """GPUs placed from the same free slots: the largest jobs first, each on the first nodes that have room.

    A job may take slots of a type only by right of its team's quota, as in `decide`, and a gang takes all of
    its nodes, of one type, or none. No room is kept for anybody, and nobody's turn counts.
    """
    books, shelf, placed = Books(nodes, running, teams), _Shelf(nodes), 0
    for job in sorted(queue, key=_largest_first):
        if not shelf.n_free:
            break
        found = shelf.first_fit(job, books)
        if found:
            shelf.take(found, job.devices_per_node)
            books.take(job.team, found[0].accelerator, job.devices_per_node * job.nodes)
            placed += job.devices_per_node * job.nodes
    return placed


def _largest_first(job: Waiting) -> tuple[int, int, tuple[int, float, str]]:
    return -job.devices_per_node * job.nodes, -job.devices_per_node, job.order


class _Shelf:
    """The nodes with free slots, in their order. These only become fewer, so a search never goes back."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._free = {node.id: len(node.free_slots) for node in nodes if node.free_slots}
        self.n_free = sum(self._free.values())
        self._nodes: dict[str, list[Node]] = {}
        for node in nodes:
            if node.free_slots:
                self._nodes.setdefault(node.accelerator, []).append(node)
        self._passed: dict[tuple[str, int], int] = {}
        self._too_few: dict[tuple[str, int], int] = {}

    def first_fit(self, job: Waiting, books: Books) -> list[Node]:
        """The first nodes with room, as many as it asks for, of a type that it fits and its team may take."""
        slots = job.devices_per_node * job.nodes
        fits = [found for accelerator in self._nodes if (found := self._firsts(accelerator, job))]
        for found in sorted(fits, key=lambda nodes: nodes[0].id):
            if books.claim(job.team, found[0].accelerator, slots).is_granted:
                return found
        return []

    def take(self, nodes: Sequence[Node], devices: int) -> None:
        for node in nodes:
            self._free[node.id] -= devices
            self.n_free -= devices

    def _firsts(self, accelerator: str, job: Waiting) -> list[Node]:
        """The first nodes of the type with room; none where they are too few."""
        nodes, size = self._nodes[accelerator], (accelerator, job.devices_per_node)
        too_few = self._too_few.get(size, math.inf)
        if not accelerator_fits(job.accelerator, accelerator) or job.nodes >= too_few:
            return []
        at = self._passed.get(size, 0)
        while at < len(nodes) and self._free[nodes[at].id] < job.devices_per_node:
            at += 1
        self._passed[size] = at
        roomy = (node for node in islice(nodes, at, None) if self._free[node.id] >= job.devices_per_node)
        found = list(islice(roomy, job.nodes))
        if len(found) == job.nodes:
            return found
        self._too_few[size] = job.nodes
        return []
