"""First-fit-decreasing: how many GPUs a pass could place that had nothing but packing in mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.domain.cluster import Node, Running, Waiting, could_ever_run
from shared.domain.quota import Books, TeamShare


def first_fit_decreasing(
    nodes: Sequence[Node],
    queue: Sequence[Waiting],
    running: Sequence[Running],
    teams: Mapping[str, TeamShare],
) -> int:
    """GPUs placed from the same free slots: the largest jobs first, each on the first node that has room.

    A job may take slots of a type only by right of its team's quota, as in `decide`. No room is kept for
    anybody, and nobody's turn counts.
    """
    books, shelf, placed = Books(nodes, running, teams), _Shelf(nodes), 0
    for job in sorted(queue, key=lambda one: (-one.devices_per_node, one.order)):
        if not shelf.n_free:
            break
        node = shelf.first_fit(job, books)
        if node is not None:
            shelf.take(node, job.devices_per_node)
            books.take(job.team, node.accelerator, job.devices_per_node)
            placed += job.devices_per_node
    return placed


class _Shelf:
    """The nodes with free slots, in their order. Jobs come in falling size, so a search never goes back."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._free = {node.id: len(node.free_slots) for node in nodes if node.free_slots}
        self.n_free = sum(self._free.values())
        self._nodes: dict[str, list[Node]] = {}
        for node in nodes:
            if node.free_slots:
                self._nodes.setdefault(node.accelerator, []).append(node)
        self._passed: dict[tuple[str, int], int] = {}

    def first_fit(self, job: Waiting, books: Books) -> Node | None:
        """The first node with room, of a type that the job fits and its team may take."""
        firsts = (self._first(accelerator, job.devices_per_node) for accelerator in self._nodes)
        able = [node for node in firsts if node is not None and could_ever_run(job, node)]
        for node in sorted(able, key=lambda one: one.id):
            if books.claim(job.team, node.accelerator, job.devices_per_node).is_granted:
                return node
        return None

    def take(self, node: Node, devices: int) -> None:
        self._free[node.id] -= devices
        self.n_free -= devices

    def _first(self, accelerator: str, devices: int) -> Node | None:
        nodes, at = self._nodes[accelerator], self._passed.get((accelerator, devices), 0)
        while at < len(nodes) and self._free[nodes[at].id] < devices:
            at += 1
        self._passed[accelerator, devices] = at
        return nodes[at] if at < len(nodes) else None
