"""The teams of a run and what each is owed, so that slots are borrowed, kept back and taken back in it.

Of the 8 slots two are nobody's. The owner lends three of its four; it comes late, when its neighbour and the
guest have borrowed what they may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TYPE = "cpu"
OWNER, NEIGHBOUR, GUEST = "owner", "neighbour", "guest"
_EARLY = (NEIGHBOUR, GUEST, NEIGHBOUR)
_LATE = (OWNER, OWNER, NEIGHBOUR)


@dataclass(frozen=True)
class Owed:
    """A team's quota of the cluster's one accelerator type, in slots. A limit that is None limits nothing."""

    nominal: int
    borrowing_limit: int | None = None
    lending_limit: int | None = None

    @property
    def most(self) -> int | None:
        """What the team may ever hold."""
        return None if self.borrowing_limit is None else self.nominal + self.borrowing_limit

    @property
    def kept(self) -> int:
        """What it lends nobody."""
        return 0 if self.lending_limit is None else self.nominal - self.lending_limit

    def terms(self) -> dict[str, Any]:
        """The body of PUT /v1/teams/TEAM/quota."""
        limits = {"borrowing_limit": self.borrowing_limit, "lending_limit": self.lending_limit}
        return {"quotas": [{"accelerator": TYPE, "nominal_quota": self.nominal, **limits}]}


OWED: Mapping[str, Owed] = {
    OWNER: Owed(4, borrowing_limit=1, lending_limit=3),
    NEIGHBOUR: Owed(2, borrowing_limit=4),
    GUEST: Owed(0, borrowing_limit=2),
}


def teams_of(n_jobs: int, *, n_late: int) -> list[str]:
    """Whose the jobs of a run are, the last `n_late` of which are submitted while the faults go on."""
    n_early = n_jobs - n_late
    early = [_EARLY[number % len(_EARLY)] for number in range(n_early)]
    return early + [_LATE[number % len(_LATE)] for number in range(n_late)]
