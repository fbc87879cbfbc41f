"""A team takes its nominal quota back: which of the jobs that borrowed it are asked to leave.

**What is borrowed.** A team's running jobs of one accelerator type, in the order in which they were placed,
fill its nominal quota; those that reach beyond it are borrowed. Only they can be asked to leave, the
youngest first, and only for a job with which its team still holds no more than its nominal quota. A gang
counts with the slots of all its nodes, is borrowed as a whole if it reaches beyond, and leaves them all.

**Why no job preempts for ever.** When a job is placed within its nominal quota, the jobs of its team that
were placed before it and the job itself fill no more than that, and those before it can only become fewer.
So from then on it is never among the borrowed ones, and no preemption asks it to leave, until it ends or an
operator lowers the quota. Slots that were taken back go to a job of that kind: they are kept for it, such
jobs have the first turn, and its team borrows none meanwhile. So while no job ends, each preemption adds to
what is held within quotas, which only grows, up to the sum of the quotas; then there are no more. Two jobs
that preempt one another in turn would both have to be borrowed when they leave, and within their quotas
when they came back. Nothing of this asks on how many nodes a job runs: it is placed on all of them in one
pass, is within its quota or borrowed with all its slots, and they come free together. What a gang frees
beyond what was asked for may be borrowed again, and taken back for another job that is owed; that again
ends with what is held within quotas.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from typing import NamedTuple

from shared.domain.cluster import Running
from shared.domain.quota import Books
from shared.domain.room import NodeClass, Room, Shape

_Rank = tuple[bool, float, int, int, str]
_Wish = tuple[int, tuple[NodeClass, ...]]
"""So many slots on a node of these classes: jobs that wish the same find the same, whatever they ask for."""


@dataclass(frozen=True)
class Reclaimed:
    """Where a job's slots come free, and which jobs have to leave for it that were not asked to before."""

    node_ids: tuple[str, ...]
    victims: tuple[Running, ...]


class _Lent(NamedTuple):
    """What a job that borrowed holds of one node."""

    job: Running
    slots: int


def borrowed(running: Iterable[Running], books: Books) -> list[Running]:
    """The jobs that reach beyond their team's nominal quota, oldest first. Those that leave are left out."""
    held: defaultdict[tuple[str, str], int] = defaultdict(int)
    beyond = []
    for job in sorted(running, key=lambda one: (one.started_at, one.id)):
        if job.is_leaving:
            continue
        held[job.team, job.accelerator] += job.slots
        if held[job.team, job.accelerator] > books.quota(job.team, job.accelerator).nominal:
            beyond.append(job)
    return beyond


class Reclaiming:
    """What can be taken back on each node, and what is coming free there already."""

    def __init__(self, running: Sequence[Running], books: Books, room: Room) -> None:
        self._room = room
        self._leaving: defaultdict[str, int] = defaultdict(int)
        for node_id, slots in chain.from_iterable(job.held for job in running if job.is_leaving):
            self._leaving[node_id] += slots
        self._borrowed: defaultdict[str, dict[str, Running]] = defaultdict(dict)
        self._lent: defaultdict[str, dict[str, _Lent]] = defaultdict(dict)
        for job in borrowed(running, books):
            self._borrowed[job.accelerator][job.id] = job
            for node_id, slots in job.held:
                self._lent[node_id][job.id] = _Lent(job, slots)
        self._best: dict[_Wish, list[_Rank]] = {}
        self._nodes: dict[_Wish, set[str]] = {}
        self._seen: dict[_Wish, int] = {}
        self._changed: list[str] = []

    def reclaim(self, shape: Shape, accelerator: str, classes: Sequence[NodeClass]) -> Reclaimed | None:
        """Make room for an owed job on nodes of the classes, all of that accelerator; None: not even so.

        Nodes where enough comes free already are taken first; else those where the oldest job that has to
        leave is the youngest. The team that is owed has borrowed nothing of this type.
        """
        if shape.nodes == 1:
            found = self._on_one((shape.devices, tuple(classes)))
        else:
            found = self._on_several(shape, accelerator, classes)
        if found is not None:
            self._make_room(shape, found)
        return found

    def _on_one(self, wish: _Wish) -> Reclaimed | None:
        devices, best = wish[0], self._ranked(wish)
        while best:
            rank = heappop(best)
            node_id, now = rank[-1], self._rank(devices, rank[-1])
            if now == rank:
                return Reclaimed((node_id,), tuple(self._victims(devices, node_id) or ()))
            if now is not None:
                heappush(best, now)  # something was placed or kept there since
        return None

    def _on_several(self, shape: Shape, accelerator: str, classes: Sequence[NodeClass]) -> Reclaimed | None:
        """Let all that was borrowed of the type go in thought, the youngest first, until there is enough."""
        nodes = {node_id for alike in classes for node_id in alike.working}
        coming = _Coming({id: self._coming_free(id) for id in nodes}, shape.devices)
        gone = []
        for job in reversed(self._borrowed[accelerator].values()):
            if coming.n_enough >= shape.nodes:
                break
            coming.let_go(job)
            gone.append(job)
        if coming.n_enough < shape.nodes:
            return None
        victims = []
        for job in reversed(gone):  # nobody in vain, the oldest asked first whether it may stay
            coming.let_stay(job)
            if coming.n_enough < shape.nodes:
                coming.let_go(job)
                victims.append(job)
        return Reclaimed(coming.fullest(shape.nodes), tuple(victims[::-1]))

    def _make_room(self, shape: Shape, found: Reclaimed) -> None:
        for job in found.victims:
            del self._borrowed[job.accelerator][job.id]
            for node_id, slots in job.held:
                del self._lent[node_id][job.id]
                self._leaving[node_id] += slots
                self._changed.append(node_id)
        for node_id in found.node_ids:
            self._room.keep(node_id, shape.devices)
            self._changed.append(node_id)

    def _ranked(self, wish: _Wish) -> list[_Rank]:
        """The nodes by what taking back costs there: ranked once, and anew where something was taken back."""
        best = self._best.get(wish)
        if best is None:
            best = self._best[wish] = []
            self._nodes[wish] = {node for alike in wish[1] for node in alike.working}
            again = self._nodes[wish]
        else:
            again = self._nodes[wish].intersection(self._changed[self._seen[wish] :])
        for node_id in again:
            rank = self._rank(wish[0], node_id)
            if rank is not None:
                heappush(best, rank)
        self._seen[wish] = len(self._changed)
        return best

    def _rank(self, devices: int, node_id: str) -> _Rank | None:
        victims = self._victims(devices, node_id)
        if victims is None:
            return None
        oldest = victims[-1].started_at if victims else 0.0
        # Where nobody has to leave: what leaves the least over, so that large rooms stay for large jobs.
        over = 0 if victims else self._coming_free(node_id)
        return bool(victims), -oldest, sum(job.slots for job in victims), over, node_id

    def _victims(self, devices: int, node_id: str) -> list[Running] | None:
        """Who has to leave, the youngest first, nobody in vain; None where all of them are too few."""
        missing = devices - self._coming_free(node_id)
        victims = []
        for lent in reversed(self._lent[node_id].values()):
            if missing <= 0:
                break
            victims.append(lent)
            missing -= lent.slots
        if missing > 0:
            return None
        return _without_needless(victims, spare=-missing)

    def _coming_free(self, node_id: str) -> int:
        return self._room.left[node_id] + self._leaving[node_id]


class _Coming:
    """How many slots come free on each node, and how many nodes have enough, as jobs go or stay."""

    def __init__(self, free: dict[str, int], devices: int) -> None:
        self._free, self._devices = free, devices
        self.n_enough = sum(slots >= devices for slots in free.values())

    def let_go(self, job: Running) -> None:
        for node_id, slots in job.held:
            self._add(node_id, slots)

    def let_stay(self, job: Running) -> None:
        for node_id, slots in job.held:
            self._add(node_id, -slots)

    def fullest(self, n_nodes: int) -> tuple[str, ...]:
        """So many of the nodes that have enough, those with the least."""
        enough = sorted((slots, id) for id, slots in self._free.items() if slots >= self._devices)
        return tuple(node_id for _, node_id in enough[:n_nodes])

    def _add(self, node_id: str, slots: int) -> None:
        if node_id in self._free:
            had_enough = self._free[node_id] >= self._devices
            self._free[node_id] += slots
            self.n_enough += (self._free[node_id] >= self._devices) - had_enough


def _without_needless(victims: Sequence[_Lent], spare: int) -> list[Running]:
    """Let those stay, the oldest first, without whom there is enough already."""
    needed = []
    for lent in reversed(victims):
        if lent.slots <= spare:
            spare -= lent.slots
        else:
            needed.append(lent.job)
    return needed[::-1]
