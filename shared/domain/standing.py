"""How much each team has had and has of what nobody is owed: whose turn it is, and how the past decays."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from shared.domain.cluster import Node
from shared.domain.quota import Books


class Standings:
    """The standing of each team; the lowest goes first.

    Of each accelerator type: the slots that the team holds beyond its nominal quota, and those it has held
    beyond it on average, over all slots of the type. The largest of these shares counts (dominant resource
    fairness, Ghodsi et al. 2011), divided by the team's weight.
    """

    def __init__(self, nodes: Iterable[Node], books: Books, past: Mapping[tuple[str, str], float]) -> None:
        self._books = books
        self._size: Counter[str] = Counter()
        for node in nodes:
            self._size[node.accelerator] += node.n_slots
        self._past: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for (team, accelerator), slots in past.items():
            self._past[team][accelerator] = slots
        self._known: dict[str, float] = {}

    def of(self, team: str) -> float:
        found = self._known.get(team)
        if found is None:
            shares = (
                self._beyond(team, accelerator) / size for accelerator, size in self._size.items() if size
            )
            found = self._known[team] = max(shares, default=0.0) / self._books.share(team).weight
        return found

    def forget(self, team: str) -> None:
        """The team holds more now."""
        self._known.pop(team, None)

    def _beyond(self, team: str, accelerator: str) -> float:
        nominal = self._books.quota(team, accelerator).nominal
        now = max(0, self._books.used[team, accelerator] - nominal)
        return now + max(0.0, self._past[team].get(accelerator, 0.0) - nominal)


def held_on_average(slots: int, since_s: float, until_s: float, half_life_s: float) -> float:
    """What holding `slots` from `since_s` to `until_s` seconds ago adds to a team's average now.

    A moment counts half after each half-life; holding the same slots all along adds up to just these.
    """
    return slots * float(0.5 ** (until_s / half_life_s) - 0.5 ** (since_s / half_life_s))
