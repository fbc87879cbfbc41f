"""Who runs next, where, and who hands back what it borrowed: pure, and the same output for the same input.

(nodes, running, queue, quotas, past usage) -> placements, preemptions and, for each job that waits, a reason.

**Whose turn it is.** First come the jobs that stay within their team's nominal quota, then those that
borrow. Among equals the team with the lowest standing goes: what it holds beyond its nominal quota now, and
what it has held beyond it on average (decayed by a half-life), as a share of all slots of the types that its
next job may run on, divided by its weight. A team that was idle thus gets up to twice its share until its
average has caught up, never all. Within a team the order is priority, then age.

**What waits for room.** The first job that finds none keeps the node where there will be enough of it
soonest, one job for each accelerator type; what lies behind it in the queue goes on being placed everywhere
else. So a large job is not starved by small ones, and they do not wait for it where it will not run. Which
node that is, is guessed anew in each pass from how long the jobs there still run, and nothing but a job
with an earlier turn takes slots there.

**What is owed.** Where a job within its team's nominal quota finds no room, jobs that borrowed are asked to
leave: see `shared/domain/reclaiming.py`, also for why that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from shared.domain import waiting_words as words
from shared.domain.cluster import Node, Placement, Preemption, Reservation, Running, Waiting
from shared.domain.quota import Books, Claim, TeamShare
from shared.domain.reclaiming import Reclaiming
from shared.domain.room import NodeClass, Room, Shape
from shared.domain.standing import Standings
from shared.domain.turns import Next, Turn, lines_of, take_turns, turn_of


@dataclass(frozen=True)
class Decision:
    placements: tuple[Placement, ...]
    reasons: dict[str, str]
    """Job id -> why it waits."""
    preemptions: tuple[Preemption, ...] = ()
    reservations: tuple[Reservation, ...] = ()


def decide(
    nodes: Sequence[Node],
    queue: Sequence[Waiting],
    *,
    running: Sequence[Running] = (),
    teams: Mapping[str, TeamShare] | None = None,
    past: Mapping[tuple[str, str], float] | None = None,
) -> Decision:
    """Place what can be placed now. `past`: the slots of a type that a team has held on average, decayed."""
    made = _Pass(nodes, running, teams or {}, past or {})
    left = take_turns(made.turn, lines_of(queue), made.serve_owed, made.is_not_owed)
    take_turns(made.turn, left, made.serve, made.is_known_to_wait)
    return made.decision()


@dataclass(frozen=True)
class _Able:
    """The nodes that could run a shape of job for its team, by accelerator type."""

    classes: dict[str, list[NodeClass]]
    never: str | None
    """Why there are none."""


class _Pass:
    """One pass: what is left of books and room, and what was decided so far."""

    def __init__(
        self,
        nodes: Sequence[Node],
        running: Sequence[Running],
        teams: Mapping[str, TeamShare],
        past: Mapping[tuple[str, str], float],
    ) -> None:
        self._books = Books(nodes, running, teams)
        self._room = Room(nodes, running)
        self._reclaiming = Reclaiming(running, self._books, self._room)
        self._standings = Standings(nodes, self._books, past)
        self._able: dict[tuple[str, Shape], _Able] = {}
        self._waiting: dict[tuple[str, Shape], list[str]] = {}
        self._why: dict[tuple[str, Shape], Callable[[], str]] = {}
        self._not_owed: set[tuple[str, Shape]] = set()
        self._heads: set[str] = set()
        self._placements: list[Placement] = []
        self._preemptions: list[Preemption] = []
        self._reservations: list[Reservation] = []
        self._reasons: dict[str, str] = {}

    def decision(self) -> Decision:
        """All of it. Reasons are put into words last, when it is known what is left."""
        for group, jobs in self._waiting.items():
            self._reasons.update(dict.fromkeys(jobs, self._why[group]()))
        return Decision(
            tuple(self._placements), self._reasons, tuple(self._preemptions), tuple(self._reservations)
        )

    def turn(self, head: Next) -> Turn:
        """When a team's next job has its turn."""
        return turn_of(head, self._standings, tuple(self._where(head).classes))

    def serve_owed(self, asked: Next) -> bool:
        """Place the job within its team's nominal quota, or have that handed back. False: neither can be."""
        owed = self._with(Claim.GUARANTEED, asked)
        if self._place(asked, owed) or self._take_back(asked, owed):
            return True
        self._not_owed.add(asked.group)
        return False

    def is_not_owed(self, asked: Next) -> bool:
        """Whether another job of its team and shape was not served so."""
        return asked.group in self._not_owed

    def serve(self, asked: Next) -> bool:
        """Place the job wherever its team may, or know why it waits."""
        team, shape = asked.group
        permitted = self._with(Claim.GUARANTEED, asked) + self._with(Claim.BORROWED, asked)
        if self._place(asked, permitted):
            return True
        self._keep_room(asked, permitted + self._with(Claim.NOT_NOW, asked))
        self._waiting[asked.group] = [asked.job.id]
        if permitted:
            classes = [alike for type in permitted for alike in self._where(asked).classes[type]]
            self._why[asked.group] = partial(words.no_room, shape, self._room, classes, self._books, team)
        else:
            self._why[asked.group] = self._refusal(asked)
        return True

    def is_known_to_wait(self, asked: Next) -> bool:
        """Whether another job of its team and shape has found nothing; then it waits for the same reason.

        From there on room and rights only become less.
        """
        if asked.group not in self._waiting:
            return False
        self._waiting[asked.group].append(asked.job.id)
        return True

    def _place(self, asked: Next, types: Sequence[str]) -> bool:
        """Give it slots on the fullest node that has enough open."""
        team, shape = asked.group
        classes = self._where(asked).classes
        found = self._room.find(shape.devices, [alike for type in types for alike in classes[type]])
        if found is None:
            return False
        node_id, accelerator = found
        slots = self._room.take(node_id, shape.devices)
        self._books.take(team, accelerator, shape.devices)
        self._standings.forget(team)
        self._placements.append(Placement(asked.job.id, node_id, slots))
        return True

    def _take_back(self, asked: Next, owed: Sequence[str]) -> bool:
        """Have its team's own quota handed back, on one node."""
        team, shape = asked.group
        for type in owed:
            found = self._reclaiming.reclaim(shape, type, self._where(asked).classes[type])
            if found is None:
                continue
            self._books.promise(team, type, shape.devices)
            self._standings.forget(team)
            self._preemptions += [Preemption(job.id, team, asked.job.id, type) for job in found.victims]
            self._reservations.append(Reservation(asked.job.id, found.node_id, shape.devices))
            quota = self._books.quota(team, type)
            self._reasons[asked.job.id] = words.taken_back(shape, found.node_id, type, quota)
            return True
        return False

    def _keep_room(self, asked: Next, types: Sequence[str]) -> None:
        """Keep one node for the first job that finds no room on a type, where there will be room soonest."""
        _, shape = asked.group
        able = self._where(asked).classes
        type_of = {
            node: type
            for type in types
            if type not in self._heads
            for alike in able[type]
            for node in alike.working
        }
        node_id = self._room.soonest(shape.devices, type_of)
        if node_id is not None:
            self._books.set_aside(type_of[node_id], self._room.keep(node_id, shape.devices))
            self._heads.add(type_of[node_id])
            self._reservations.append(Reservation(asked.job.id, node_id, shape.devices))

    def _refusal(self, asked: Next) -> Callable[[], str]:
        team, shape = asked.group
        never = self._where(asked).never
        if never is not None:
            return partial(str, never)
        return partial(words.not_permitted, shape, self._claims(asked), self._books, team)

    def _with(self, claim: Claim, asked: Next) -> list[str]:
        """The accelerator types on which the job's team has this right to so many slots."""
        return [type for type, found in self._claims(asked).items() if found is claim]

    def _claims(self, asked: Next) -> dict[str, Claim]:
        team, shape = asked.group
        return {type: self._books.claim(team, type, shape.devices) for type in self._where(asked).classes}

    def _where(self, asked: Next) -> _Able:
        found = self._able.get(asked.group)
        if found is None:
            found = self._able[asked.group] = self._look(asked)
        return found

    def _look(self, asked: Next) -> _Able:
        team, shape = asked.group
        if shape.nodes > 1:
            return _Able({}, words.several_nodes(shape))
        everywhere = self._room.able(asked.job)
        if not everywhere:
            return _Able({}, words.never(shape))
        allowed = self._books.share(team).accelerators
        classes: dict[str, list[NodeClass]] = {}
        for alike in everywhere:
            if allowed is None or alike.accelerator in allowed:
                classes.setdefault(alike.accelerator, []).append(alike)
        never = None if classes else words.not_allowed(shape, allowed or ())
        return _Able(dict(sorted(classes.items())), never)
