"""Whether a team ever held more than its quotas let it: what the database is seen to hold, and its history.

`over_quota` judges one state. The watch asks the database for its state several times a second, past all
gates, through whatever is done to it. `states` puts every state there was together from the rows that
allocations leave, so that none between two looks is missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.teams import TYPE, Owed


@dataclass(frozen=True)
class Span:
    """What one allocation held, and from when to when (seconds of the database's clock)."""

    team: str
    slots: int
    since: float
    until: float


def over_quota(held: Mapping[str, int], owed: Mapping[str, Owed], size: int) -> list[str]:
    """What is wrong where teams hold so many slots of a cluster of `size`.

    No team holds more than its nominal quota and borrowing limit. And what the teams hold that have borrowed
    leaves what the others do not lend: others may take of that only what is their own.
    """
    found = [
        f"{team} held {held[team]} of type {TYPE}, and may hold {terms.most}"
        for team, terms in owed.items()
        if terms.most is not None and held.get(team, 0) > terms.most
    ]
    borrowers = [team for team, terms in owed.items() if held.get(team, 0) > terms.nominal]
    n, kept = sum(held[team] for team in borrowers), sum(owed[team].kept for team in owed.keys() - borrowers)
    if borrowers and n + kept > size:
        who = " and ".join(borrowers)
        found.append(f"{who} held {n} of {size} of type {TYPE}, of which others lend no {kept}")
    return found


def is_borrowed(held: Mapping[str, int], owed: Mapping[str, Owed]) -> bool:
    """Whether a team holds more than its own."""
    return any(held.get(team, 0) > terms.nominal for team, terms in owed.items())


def states(spans: Iterable[Span]) -> Iterator[dict[str, int]]:
    """What each team held, after each change. What ends when something begins has ended before.

    A pass places on what it has read, so nothing that it counted as gone ends later than what it places
    begins.
    """
    changes = [change for span in spans for change in _changes(span)]
    held: Counter[str] = Counter()
    for _, slots, team in sorted(changes):
        held[team] += slots
        yield dict(held)


def _changes(span: Span) -> list[tuple[float, int, str]]:
    return [(span.since, span.slots, span.team), (span.until, -span.slots, span.team)]
