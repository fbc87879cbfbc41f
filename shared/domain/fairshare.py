"""Who runs next, where, and who hands back what it borrowed: pure, and the same output for the same input.

(nodes, running, queue, quotas, past usage) -> placements, preemptions and, for each job that waits, a reason.

**Whose turn it is.** First come the jobs that stay within their team's nominal quota, then those that
borrow. Among equals the team with the lowest standing goes: what it holds beyond its nominal quota now, and
what it has held beyond it on average (decayed by a half-life), as a share of all slots of the types that its
next job may run on, divided by its weight. A team that was idle thus gets up to twice its share until its
average has caught up, never all. Within a team the order is priority, then age.

**A job of several nodes**, a gang, is placed whole or not at all: on as many nodes as it asks for, all of one
accelerator type, so many slots on each. For quotas and turns it counts with all its slots.

**What waits for room.** The first job that finds none keeps the node, or a gang its nodes, where there will
be enough of it soonest, one job for each accelerator type; what lies behind it in the queue goes on being
placed everywhere else. So a large job is not starved by small ones, and they do not wait for it where it will
not run. Which nodes these are, is looked up anew in each pass, from how long the jobs there may still run and
how much is missing: both only get better there meanwhile, as nothing but a job with an earlier turn takes
slots there.

**What is owed.** Where a job within its team's nominal quota finds no room, jobs that borrowed are asked to
leave: see `shared/domain/reclaiming.py`, also for why that ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from shared.domain import waiting_words as words
from shared.domain.cluster import Node, Part, Placement, Preemption, Reservation, Running, Waiting
from shared.domain.quota import Books, Claim, TeamShare
from shared.domain.reclaiming import Reclaiming
from shared.domain.room import Able, Room, Shape
from shared.domain.standing import Standings
from shared.domain.turns import Group, Next, Turn, lines_of, take_turns, turn_of


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
    left = take_turns(made.turn, lines_of(queue, nodes), made.serve_owed, made.is_not_owed)
    take_turns(made.turn, left, made.serve, made.is_known_to_wait)
    return made.decision()


@dataclass(frozen=True, eq=False)
class _Able:
    """The nodes that could run a team's jobs of one size, by accelerator type.

    One object a pass for all shapes that differ in nothing but what they ask of these nodes: they fare alike.
    """

    classes: Able
    never: str | None = None
    """Why there are none."""

    def on(self, types: Iterable[str]) -> Able:
        """Those of these types."""
        return {type: self.classes[type] for type in types}


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
        self._able: dict[Group, _Able] = {}
        self._alike: dict[tuple[object, ...], _Able] = {}
        self._waiting: defaultdict[Group, list[str]] = defaultdict(list)
        self._why: dict[_Able, Callable[[Shape], str]] = {}
        self._not_owed: set[_Able] = set()
        self._heads: set[str] = set()
        self._placements: list[Placement] = []
        self._preemptions: list[Preemption] = []
        self._reservations: list[Reservation] = []
        self._reasons: dict[str, str] = {}

    def decision(self) -> Decision:
        """All of it. Reasons are put into words last, when it is known what is left."""
        for group, jobs in self._waiting.items():
            self._reasons.update(dict.fromkeys(jobs, self._why[self._able[group]](group.shape)))
        return Decision(
            tuple(self._placements), self._reasons, tuple(self._preemptions), tuple(self._reservations)
        )

    def turn(self, head: Next) -> Turn:
        """When a team's next job has its turn."""
        return turn_of(head, self._standings, tuple(self._where(head).classes))

    def serve_owed(self, asked: Next) -> bool:
        """Place the job within its team's nominal quota, or have that handed back. False: neither can be."""
        owed = _those(Claim.GUARANTEED, self._claims(asked))
        if self._place(asked, owed) or self._take_back(asked, owed):
            return True
        self._not_owed.add(self._where(asked))
        return False

    def is_not_owed(self, asked: Next) -> bool:
        """Whether another job of its team that fares alike was not served so."""
        return self._where(asked) in self._not_owed

    def serve(self, asked: Next) -> bool:
        """Place the job wherever its team may, or know why it waits."""
        able, claims = self._where(asked), self._claims(asked)
        permitted = _those(Claim.GUARANTEED, claims) + _those(Claim.BORROWED, claims)
        if self._place(asked, permitted):
            return True
        self._keep_room(asked, permitted + _those(Claim.NOT_NOW, claims))
        self._waiting[asked.group].append(asked.job.id)
        self._why[able] = self._reason(able, able.on(permitted), claims, asked.group.team)
        return True

    def is_known_to_wait(self, asked: Next) -> bool:
        """Whether another job of its team that fares alike has found nothing; then it waits as that does.

        From there on room and rights only become less.
        """
        if self._where(asked) not in self._why:
            return False
        self._waiting[asked.group].append(asked.job.id)
        return True

    def _place(self, asked: Next, types: Sequence[str]) -> bool:
        """Give it slots on the fullest nodes that have enough open, on all that it asks for or on none."""
        team, shape = asked.group.team, asked.group.shape
        found = self._room.find(shape, self._where(asked).on(types))
        if found is None:
            return False
        parts = tuple(Part(node_id, self._room.take(node_id, shape.devices)) for node_id in found.node_ids)
        self._books.take(team, found.accelerator, shape.slots)
        self._standings.forget(team)
        self._placements.append(Placement(asked.job.id, parts))
        return True

    def _take_back(self, asked: Next, owed: Sequence[str]) -> bool:
        """Have its team's own quota handed back, on as many nodes of a type as it asks for."""
        team, shape = asked.group.team, asked.group.shape
        for type in owed:
            found = self._reclaiming.reclaim(shape, type, self._where(asked).classes[type])
            if found is None:
                continue
            self._books.promise(team, type, shape.slots)
            self._standings.forget(team)
            self._preemptions += [Preemption(job.id, team, asked.job.id, type) for job in found.victims]
            self._reserve(asked, found.node_ids)
            quota = self._books.quota(team, type)
            self._reasons[asked.job.id] = words.taken_back(shape, found.node_ids, type, quota)
            return True
        return False

    def _keep_room(self, asked: Next, types: Sequence[str]) -> None:
        """Keep nodes for the first job that finds no room on a type, where there will be room soonest."""
        shape = asked.group.shape
        able = self._where(asked).on(type for type in types if type not in self._heads)
        found = self._room.soonest(shape, able)
        if found is not None:
            n_free = sum(self._room.keep(node_id, shape.devices) for node_id in found.node_ids)
            self._books.set_aside(found.accelerator, n_free)
            self._heads.add(found.accelerator)
            self._reserve(asked, found.node_ids)

    def _reserve(self, asked: Next, node_ids: Iterable[str]) -> None:
        shape = asked.group.shape
        self._reservations += [Reservation(asked.job.id, id, shape.devices) for id in node_ids]

    def _reason(
        self, able: _Able, permitted: Able, claims: Mapping[str, Claim], team: str
    ) -> Callable[[Shape], str]:
        """Why jobs wait that found nothing, put into words for each shape of them."""
        if (never := able.never) is not None:
            return lambda _: never
        if permitted:
            return partial(words.no_room, room=self._room, able=permitted, books=self._books, team=team)
        return partial(words.not_permitted, claims=claims, books=self._books, team=team)

    def _claims(self, asked: Next) -> dict[str, Claim]:
        """By what right the job's team could take so many slots of each type that it may run on."""
        team, shape = asked.group.team, asked.group.shape
        slots = shape.slots
        return {type: self._books.claim(team, type, slots) for type in self._where(asked).classes}

    def _where(self, asked: Next) -> _Able:
        found = self._able.get(asked.group)
        if found is None:
            found = self._able[asked.group] = self._look(asked)
        return found

    def _look(self, asked: Next) -> _Able:
        team, shape = asked.group.team, asked.group.shape
        everywhere = self._room.able(asked.job)
        if not everywhere:
            n_able, small = self._room.most_able(asked.job), self._room.too_small(shape)
            return _Able({}, words.never(shape, n_able, small))
        allowed = self._books.share(team).accelerators
        able = {type: found for type, found in everywhere.items() if allowed is None or type in allowed}
        if not able:
            return _Able({}, words.not_allowed(shape, allowed or ()))
        classes = chain.from_iterable(able.values())
        return self._alike.setdefault((team, shape.devices, shape.nodes, *classes), _Able(able))


def _those(claim: Claim, claims: Mapping[str, Claim]) -> list[str]:
    """The accelerator types of which the slots could be had by this right."""
    return [type for type, found in claims.items() if found is claim]
