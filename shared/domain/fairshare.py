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

**What waits for its own team.** A job for which its team holds too much is not starved by its team's younger
ones either: see `Books.leaves_enough`. So what a team's nominal quota could hold starts once those of its
team's jobs have ended that ran when it came, then those that have passed it, and then those on the nodes that
are kept for it; unless its team holds all of its nominal quota or more all along: then it would borrow, and
owners go before it.

**What is owed.** Where a job within its team's nominal quota finds no room, jobs that borrowed are asked to
leave: see `shared/domain/reclaiming.py`, also for why that ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from shared.domain import waiting_words as words
from shared.domain.cluster import Node, Part, Placement, Preemption, Reservation, Running, Waiting
from shared.domain.quota import Claim, TeamShare
from shared.domain.reclaiming import Reclaiming
from shared.domain.rights import Fitting, Rights, those
from shared.domain.room import Able, Shape
from shared.domain.turns import Group, Next, lines_of, take_turns


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


class _Pass:
    """One pass: what is left of books and room, and what was decided so far."""

    def __init__(
        self,
        nodes: Sequence[Node],
        running: Sequence[Running],
        teams: Mapping[str, TeamShare],
        past: Mapping[tuple[str, str], float],
    ) -> None:
        self._rights = Rights(nodes, running, teams, past)
        self.turn = self._rights.turn
        self._room, self._books = self._rights.room, self._rights.books
        self._reclaiming = Reclaiming(running, self._books, self._room)
        self._waiting: defaultdict[Group, list[Next]] = defaultdict(list)
        self._why: dict[Fitting, Callable[[Shape], str]] = {}
        self._not_owed: set[Fitting] = set()
        self._heads: set[str] = set()
        self._kept_for: set[str] = set()
        self._placements: list[Placement] = []
        self._preemptions: list[Preemption] = []
        self._reservations: list[Reservation] = []
        self._reasons: dict[str, str] = {}

    def decision(self) -> Decision:
        """All of it. Reasons are put into words last, when it is known what is left."""
        for group, waiting in self._waiting.items():
            why = self._why[self._rights.fitting[group]](group.shape)
            self._reasons.update(dict.fromkeys((one.job.id for one in waiting), why))
        # Room that was kept for an owed job which could borrow elsewhere in the end is free again.
        kept = tuple(one for one in self._reservations if one.job_id in self._reasons)
        return Decision(tuple(self._placements), self._reasons, tuple(self._preemptions), kept)

    def serve_owed(self, asked: Next) -> bool:
        """Place the job within its team's nominal quota, or have that handed back. False: neither can be.

        Then it is the first of its team to wait, and what is owed it in quota alone has room kept for it.
        """
        claims = self._rights.claims(asked)
        owed = those(Claim.GUARANTEED, claims)
        if self._place(asked, owed) or self._take_back(asked, owed):
            return True
        self._keep_room(asked, owed)
        self._rights.wait_first(asked, claims)
        self._not_owed.add(self._rights.fitting[asked.group])
        return False

    def is_not_owed(self, asked: Next) -> bool:
        """Whether another job of its team that fares alike was not served so."""
        return self._rights.fitting[asked.group] in self._not_owed

    def serve(self, asked: Next) -> bool:
        """Place the job wherever its team may, or know why it waits."""
        able, claims = self._rights.fitting[asked.group], self._rights.claims(asked)
        permitted = those(Claim.GUARANTEED, claims) + those(Claim.BORROWED, claims)
        if self._place(asked, permitted):
            return True
        self._keep_room(asked, permitted + those(Claim.NOT_NOW, claims))
        self._rights.wait_first(asked, claims)
        self._waiting[asked.group].append(asked)
        self._why[able] = self._reason(able, able.on(permitted), claims, asked.group.team)
        return True

    def is_known_to_wait(self, asked: Next) -> bool:
        """Whether another job of its team that fares alike has found nothing; then it waits as that does.

        From there on room and rights only become less.
        """
        if self._rights.fitting[asked.group] not in self._why:
            return False
        self._waiting[asked.group].append(asked)
        return True

    def _place(self, asked: Next, types: Sequence[str]) -> bool:
        """Give it slots on the fullest nodes that have enough open, on all that it asks for or on none."""
        shape = asked.group.shape
        found = self._room.find(shape, self._rights.fitting[asked.group].on(types))
        if found is None:
            return False
        parts = tuple(Part(node_id, self._room.take(node_id, shape.devices)) for node_id in found.node_ids)
        self._rights.take(asked, found.accelerator)
        self._placements.append(Placement(asked.job.id, parts))
        return True

    def _take_back(self, asked: Next, owed: Sequence[str]) -> bool:
        """Have its team's own quota handed back, on as many nodes of a type as it asks for."""
        team, shape = asked.group.team, asked.group.shape
        for type in owed:
            found = self._reclaiming.reclaim(shape, type, self._rights.fitting[asked.group].classes[type])
            if found is None:
                continue
            self._rights.promise(asked, type)
            self._preemptions += [Preemption(job.id, team, asked.job.id, type) for job in found.victims]
            self._reserve(asked, found.node_ids)
            quota = self._books.quota(team, type)
            self._reasons[asked.job.id] = words.taken_back(shape, found.node_ids, type, quota)
            return True
        return False

    def _keep_room(self, asked: Next, types: Sequence[str]) -> None:
        """Keep nodes for the first job that finds no room on a type, where there will be room soonest."""
        shape = asked.group.shape
        able = self._rights.fitting[asked.group].on(type for type in types if type not in self._heads)
        found = None if asked.job.id in self._kept_for else self._room.soonest(shape, able)
        if found is not None:
            n_free = sum(self._room.keep(node_id, shape.devices) for node_id in found.node_ids)
            self._books.set_aside(found.accelerator, n_free)
            self._heads.add(found.accelerator)
            self._kept_for.add(asked.job.id)
            self._reserve(asked, found.node_ids)

    def _reserve(self, asked: Next, node_ids: Iterable[str]) -> None:
        shape = asked.group.shape
        self._reservations += [Reservation(asked.job.id, id, shape.devices) for id in node_ids]

    def _reason(
        self, able: Fitting, permitted: Able, claims: Mapping[str, Claim], team: str
    ) -> Callable[[Shape], str]:
        """Why jobs wait that found nothing, put into words for each shape of them."""
        if (never := able.never) is not None:
            return lambda _: never
        if permitted:
            return partial(words.no_room, room=self._room, able=permitted, books=self._books, team=team)
        return partial(words.not_permitted, claims=claims, books=self._books, team=team)
