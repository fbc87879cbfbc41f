"""What a job may run on, by what right its team takes slots there, and when its turn is: as a walk goes on.

Both walks of turns ask it: the one that places jobs and the one that only tells their order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from shared.domain import waiting_words as words
from shared.domain.cluster import Node, Running
from shared.domain.quota import Books, Claim, TeamShare, Waits
from shared.domain.room import Able, Room, n_working
from shared.domain.standing import Standings
from shared.domain.turns import Group, Next, Turn, turn_of


@dataclass(frozen=True, eq=False)
class Fitting:
    """The nodes that could run a team's jobs of one size, by accelerator type.

    One object a walk for all shapes that differ in nothing but what they ask of these nodes: they fare alike.
    """

    classes: Able
    never: str | None = None
    """Why there are none."""

    def on(self, types: Iterable[str]) -> Able:
        """Those of these types."""
        return {type: self.classes[type] for type in types}


class Rights:
    """Books, room and standings of one walk, in step with one another."""

    def __init__(
        self,
        nodes: Sequence[Node],
        running: Sequence[Running],
        teams: Mapping[str, TeamShare],
        past: Mapping[tuple[str, str], float],
    ) -> None:
        self.books = Books(nodes, running, teams)
        self.room = Room(nodes, running)
        self._standings = Standings(nodes, self.books, past)
        self.fitting = _Fittings(self._look)
        """Where a group's jobs could run, if the nodes were empty."""
        self._first_to_wait: defaultdict[str, dict[str, Waits]] = defaultdict(dict)
        self._alike: dict[tuple[object, ...], Fitting] = {}

    def claims(self, asked: Next) -> dict[str, Claim]:
        """By what right it could take its slots of each type that it may run on."""
        team, slots = asked.group.team, asked.group.shape.slots
        claims = {type: self.books.claim(team, type, slots) for type in self.fitting[asked.group].classes}
        for type, first in self._first_to_wait[team].items():
            if type not in claims or first.job_id == asked.job.id or not claims[type].is_granted:
                continue
            if not self.books.leaves_enough(team, type, slots, first):
                claims[type] = Claim.BEHIND
        return claims

    def wait_first(self, asked: Next, claims: Mapping[str, Claim]) -> None:
        """It has found nothing; its team's younger jobs leave it what it waits for, if none older does.

        Unless its team could not have it beside what it holds since before the job came: until that ends none
        of the younger ones keeps it waiting. Nor do they where no nodes that take work are there for it.
        """
        team, shape = asked.group.team, asked.group.shape
        if self._first_to_wait[team].keys() >= claims.keys():
            return
        classes = self.fitting[asked.group].classes
        there = {type: claim for type, claim in claims.items() if n_working(classes[type]) >= shape.nodes}
        open = those(Claim.GUARANTEED, there) or [type for type, one in there.items() if not one.is_barred]
        for type in open or there:
            with_earlier = shape.slots + self.books.held_since(team, type, asked.job.order[1])
            if open or self.books.could_hold(team, type, with_earlier):
                waits = Waits(asked.job.id, shape.slots, with_earlier)
                self._first_to_wait[team].setdefault(type, waits)

    def turn(self, head: Next) -> Turn:
        """When a team's next job has its turn."""
        return turn_of(head, self._standings, tuple(self.fitting[head.group].classes))

    def take(self, asked: Next, accelerator: str) -> None:
        """Its team has taken its slots, all of this type."""
        self.books.take(asked.group.team, accelerator, asked.group.shape.slots)
        self._standings.forget(asked.group.team)
        self._wait_no_more(asked)

    def promise(self, asked: Next, accelerator: str) -> None:
        """Its team gets them back of its own quota, and borrows none of the type until then."""
        self.books.promise(asked.group.team, accelerator, asked.group.shape.slots)
        self._standings.forget(asked.group.team)

    def _wait_no_more(self, asked: Next) -> None:
        """It has been placed, and is in nobody's way any more."""
        firsts = self._first_to_wait[asked.group.team]
        for type in [type for type, first in firsts.items() if first.job_id == asked.job.id]:
            del firsts[type]

    def _look(self, group: Group) -> Fitting:
        team, shape = group.team, group.shape
        everywhere = self.room.able(shape)
        if not everywhere:
            n_able, small = self.room.most_able(shape), self.room.too_small(shape)
            return Fitting({}, words.never(shape, n_able, small, self.room.n_out_of_reach(shape)))
        allowed = self.books.share(team).accelerators
        able = everywhere
        if allowed is not None:
            able = {type: found for type, found in everywhere.items() if type in allowed}
        if not able:
            return Fitting({}, words.not_allowed(shape, allowed or ()))
        classes = chain.from_iterable(able.values())
        return self._alike.setdefault((team, shape.devices, shape.nodes, *classes), Fitting(able))


class _Fittings(dict[Group, Fitting]):
    """Each is looked up when it is first asked for; it is asked for some times a job."""

    def __init__(self, look: Callable[[Group], Fitting]) -> None:
        super().__init__()
        self._look = look

    def __missing__(self, group: Group) -> Fitting:
        found = self[group] = self._look(group)
        return found


def those(claim: Claim, claims: Mapping[str, Claim]) -> list[str]:
    """The accelerator types of which the slots could be had by this right."""
    return [type for type, found in claims.items() if found is claim]
