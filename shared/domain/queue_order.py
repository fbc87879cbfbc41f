"""In which order waiting jobs have their turn: the one place from which what tells of the queue takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.domain.cluster import Node, Running, Waiting
from shared.domain.quota import Claim, TeamShare
from shared.domain.rights import Fitting, Rights, those
from shared.domain.turns import Next, lines_of, take_turns


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
        self._rights = Rights(nodes, running, teams, past)
        self._not_owed: set[Fitting] = set()
        self.turn = self._rights.turn

    def serve_owed(self, asked: Next) -> bool:
        """Within its team's nominal quota. False: it would not be."""
        claims = self._rights.claims(asked)
        owed = those(Claim.GUARANTEED, claims)
        if not owed:
            self._rights.wait_first(asked, claims)
            self._not_owed.add(self._rights.fitting[asked.group])
            return False
        self._rights.take(asked, owed[0])
        self.jobs.append(InTurn(asked.job))
        return True

    def is_not_owed(self, asked: Next) -> bool:
        return self._rights.fitting[asked.group] in self._not_owed

    def serve(self, asked: Next) -> bool:
        """Beyond it; a job that could run nowhere, or is barred, takes nothing from its team."""
        claims = self._rights.claims(asked)
        open = [type for type, claim in claims.items() if not claim.is_barred]
        if open:
            self._rights.take(asked, open[0])
        else:
            self._rights.wait_first(asked, claims)
        self.jobs.append(InTurn(asked.job, is_barred=bool(claims) and not open))
        return True
