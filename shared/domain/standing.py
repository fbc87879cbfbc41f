"""How much each team has had and has of what nobody is owed: whose turn it is, and how the past decays."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from shared.domain.cluster import Node
from shared.domain.quota import Books

Types = tuple[str, ...]
"""Accelerator types, in their order."""


class _Given(NamedTuple):
    """What of a team's standing for some types stays the same through a pass, in slots but for the weight."""

    nominal: int
    past_beyond: float
    size: int
    weight: float


class Standings:
    """The standing of each team for a job; the lowest goes first.

    Over all accelerator types that the job may run on together: the slots that the team holds beyond its
    nominal quotas, and those it has held beyond them on average, over all slots of these types, divided by
    the team's weight. Types that serve the job alike count alike: were it the type of which the team has the
    largest part, one slot of a type that has but two would weigh as much as half the cluster.
    """

    def __init__(self, nodes: Iterable[Node], books: Books, past: Mapping[tuple[str, str], float]) -> None:
        self._books = books
        self._past = past
        self._size: Counter[str] = Counter()
        for node in nodes:
            self._size[node.accelerator] += node.n_slots
        self._all = tuple(sorted(self._size))
        self._given: dict[tuple[str, Types], _Given] = {}
        self._known: defaultdict[str, dict[Types, float]] = defaultdict(dict)

    def of(self, team: str, types: Types) -> float:
        """For a job that may run on these types; one that can run nowhere counts them all."""
        types = types or self._all
        found = self._known[team].get(types)
        if found is None:
            found = self._known[team][types] = self._look(team, types)
        return found

    def forget(self, team: str) -> None:
        """The team holds more now."""
        self._known.pop(team, None)

    def _look(self, team: str, types: Types) -> float:
        given = self._given.get((team, types))
        if given is None:
            given = self._given[team, types] = self._find(team, types)
        now = sum([self._books.used[team, accelerator] for accelerator in types])
        beyond = max(0, now - given.nominal) + given.past_beyond
        return beyond / given.size / given.weight if given.size else 0.0

    def _find(self, team: str, types: Types) -> _Given:
        nominal = sum(self._books.quota(team, accelerator).nominal for accelerator in types)
        past = sum(self._past.get((team, accelerator), 0.0) for accelerator in types)
        size = sum(self._size[accelerator] for accelerator in types)
        return _Given(nominal, max(0.0, past - nominal), size, self._books.share(team).weight)


def held_on_average(slots: int, since_s: float, until_s: float, half_life_s: float) -> float:
    """What holding `slots` from `since_s` to `until_s` seconds ago adds to a team's average now.

    A moment counts half after each half-life; holding the same slots all along adds up to just these.
    """
    return slots * float(0.5 ** (until_s / half_life_s) - 0.5 ** (since_s / half_life_s))
