"""In which order waiting jobs have their turn: the one place from which what tells of the queue takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.domain.cluster import Node, Running, Waiting
from shared.domain.quota import Books, Claim, TeamShare
from shared.domain.room import Room
from shared.domain.standing import Standings
from shared.domain.turns import Group, Next, Turn, lines_of, take_turns, turn_of

# No slot that comes free changes these, only what the team itself hands back, or its quota.
_BARS = (Claim.OVER_LIMIT, Claim.NOT_LENT)


@dataclass(frozen=True)
class InTurn:
    """A waiting job in its turn."""

    job: Waiting
    is_barred: bool = False
    """Whether its team may not hold so much, beside what it has and what its jobs ahead get."""


def in_order(
    queue: Sequence[Waiting],
    nodes: Sequence[Node],
    *,
    running: Sequence[Running] = (),
    teams: Mapping[str, TeamShare] | None = None,
    past: Mapping[tuple[str, str], float] | None = None,
) -> list[InTurn]:
    """The waiting jobs, the one whose turn is next first.

    As `fairshare.decide` would come to them if each, once it had its turn, found room.
    """
    served = _Served(nodes, running, teams or {}, past or {})
    left = take_turns(served.turn, lines_of(queue, nodes), served.serve_owed, served.is_not_owed)
    take_turns(served.turn, left, served.serve, lambda _: False)
    return served.jobs


class _Served:
    """The jobs that had their turn, and what their teams would hold by then."""

    def __init__(
        self,
        nodes: Sequence[Node],
        running: Sequence[Running],
        teams: Mapping[str, TeamShare],
        past: Mapping[tuple[str, str], float],
    ) -> None:
        self.jobs: list[InTurn] = []
        self._books = Books(nodes, running, teams)
        self._standings = Standings(nodes, self._books, past)
        self._room = Room(nodes, running)
        self._types: dict[Group, list[str]] = {}
        self._not_owed: set[Group] = set()

    def turn(self, head: Next) -> Turn:
        return turn_of(head, self._standings, tuple(self._may_run_on(head)))

    def serve_owed(self, asked: Next) -> bool:
        """Within its team's nominal quota. False: it would not be."""
        team, shape = asked.group.team, asked.group.shape
        for type in self._may_run_on(asked):
            if self._books.claim(team, type, shape.slots) is Claim.GUARANTEED:
                self._take(asked, type)
                return True
        self._not_owed.add(asked.group)
        return False

    def is_not_owed(self, asked: Next) -> bool:
        return asked.group in self._not_owed

    def serve(self, asked: Next) -> bool:
        """Beyond it; a job that could run nowhere, or is barred, takes nothing from its team."""
        team, shape = asked.group.team, asked.group.shape
        types = self._may_run_on(asked)
        open = [type for type in types if self._books.claim(team, type, shape.slots) not in _BARS]
        self._take(asked, open[0] if open else None, is_barred=bool(types) and not open)
        return True

    def _take(self, asked: Next, accelerator: str | None, *, is_barred: bool = False) -> None:
        self.jobs.append(InTurn(asked.job, is_barred))
        team, shape = asked.group.team, asked.group.shape
        if accelerator is not None:
            self._books.take(team, accelerator, shape.slots)
            self._standings.forget(team)

    def _may_run_on(self, asked: Next) -> list[str]:
        found = self._types.get(asked.group)
        if found is None:
            allowed = self._books.share(asked.job.team).accelerators
            able = self._room.able(asked.job)
            found = [type for type in able if allowed is None or type in allowed]
            self._types[asked.group] = found
        return found
