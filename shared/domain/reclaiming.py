"""A team takes its nominal quota back: which of the jobs that borrowed it are asked to leave.

**What is borrowed.** A team's running jobs of one accelerator type, in the order in which they were placed,
fill its nominal quota; those that reach beyond it are borrowed. Only they can be asked to leave, the
youngest first, and only for a job with which its team still holds no more than its nominal quota.

**Why no job preempts for ever.** When a job is placed within its nominal quota, the jobs of its team that
were placed before it and the job itself fill no more than that, and those before it can only become fewer.
So from then on it is never among the borrowed ones, and no preemption asks it to leave, until it ends or an
operator lowers the quota. Slots that were taken back go to a job of that kind: they are kept for it, such
jobs have the first turn, and its team borrows none meanwhile. So while no job ends, each preemption adds to
what is held within quotas, which only grows, up to the sum of the quotas; then there are no more. Two jobs
that preempt one another in turn would both have to be borrowed when they leave, and within their quotas
when they came back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from shared.domain.cluster import Running
from shared.domain.quota import Books
from shared.domain.room import NodeClass, Room, Shape

_Rank = tuple[bool, float, int, str]
_Wish = tuple[int, str, tuple[str, str] | None]


@dataclass(frozen=True)
class Reclaimed:
    """Where a job's slots come free, and which jobs have to leave for it that were not asked to before."""

    node_id: str
    victims: tuple[Running, ...]


def borrowed(running: Iterable[Running], books: Books) -> list[Running]:
    """The jobs that reach beyond their team's nominal quota, oldest first. Those that leave are left out."""
    held: Counter[tuple[str, str]] = Counter()
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
        self._leaving: Counter[str] = Counter()
        for job in running:
            if job.is_leaving:
                self._leaving[job.node_id] += job.slots
        self._borrowed: defaultdict[str, list[Running]] = defaultdict(list)
        for job in borrowed(running, books):
            self._borrowed[job.node_id].append(job)
        self._best: dict[_Wish, list[_Rank]] = {}
        self._nodes: dict[_Wish, set[str]] = {}
        self._seen: dict[_Wish, int] = {}
        self._changed: list[str] = []

    def reclaim(self, shape: Shape, accelerator: str, classes: Sequence[NodeClass]) -> Reclaimed | None:
        """Make room for an owed job on a node of the classes, all of that accelerator; None: not even so.

        A node where enough comes free already is taken first; else the one where the oldest job that has to
        leave is the youngest. The team that is owed has borrowed nothing of this type.
        """
        best = self._ranked((shape.devices, accelerator, shape.registered_model), classes)
        while best:
            rank = heappop(best)
            now = self._rank(shape.devices, rank[-1])
            if now == rank:
                return self._make_room(shape.devices, rank[-1])
            if now is not None and now > rank:
                heappush(best, now)  # it has less room than it had; where it has more, it lies there anew
        return None

    def _make_room(self, devices: int, node_id: str) -> Reclaimed:
        victims = self._victims(devices, node_id)
        assert victims is not None  # it was ranked
        for job in victims:
            self._borrowed[node_id].remove(job)
            self._leaving[node_id] += job.slots
        self._room.keep(node_id, devices)
        self._changed.append(node_id)
        return Reclaimed(node_id, tuple(victims))

    def _ranked(self, wish: _Wish, classes: Sequence[NodeClass]) -> list[_Rank]:
        """The nodes by what taking back costs there: ranked once, and anew where something was taken back."""
        best = self._best.get(wish)
        if best is None:
            best = self._best[wish] = []
            self._nodes[wish] = {node for alike in classes for node in alike.working}
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
        oldest = min((job.started_at for job in victims), default=0.0)
        return bool(victims), -oldest, sum(job.slots for job in victims), node_id

    def _victims(self, devices: int, node_id: str) -> list[Running] | None:
        """Who has to leave, the youngest first, nobody in vain; None where all of them are too few."""
        missing = devices - self._coming_free(node_id)
        victims = []
        for job in reversed(self._borrowed[node_id]):
            if missing <= 0:
                break
            victims.append(job)
            missing -= job.slots
        if missing > 0:
            return None
        return _without_needless(victims, spare=-missing)

    def _coming_free(self, node_id: str) -> int:
        return len(self._room.free[node_id]) + self._leaving[node_id] - self._room.kept[node_id]


def _without_needless(victims: Sequence[Running], spare: int) -> list[Running]:
    """Let those stay, the oldest first, without whom there is enough already."""
    needed = []
    for job in reversed(victims):
        if job.slots <= spare:
            spare -= job.slots
        else:
            needed.append(job)
    return needed[::-1]
