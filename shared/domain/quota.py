"""What each team may hold of each accelerator type, in Kueue's words, and the books of one scheduling pass.

`nominal_quota` is guaranteed: whoever has borrowed it hands it back. Beyond it a team borrows what is idle,
at most `borrowing_limit`. Of its idle nominal quota a team lends at most `lending_limit`; the rest stays
free for it. `weight` parts what is borrowed. A team without a row for a type is guaranteed nothing of it,
and may borrow all that is idle: where no team has a row, that is the whole cluster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from shared.domain.cluster import Node, Running


@dataclass(frozen=True)
class Quota:
    """Of one accelerator type, in slots. A limit that is None limits nothing."""

    nominal: int = 0
    borrowing_limit: int | None = None
    lending_limit: int | None = None

    @cached_property
    def unlent(self) -> int:
        """What of the nominal quota nobody else may have, idle or not."""
        return 0 if self.lending_limit is None else max(0, self.nominal - self.lending_limit)


@dataclass(frozen=True)
class TeamShare:
    """What one team is owed. `quotas` by accelerator type, as nodes name it."""

    weight: float = 1.0
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    accelerators: frozenset[str] | None = None
    """The only types that its jobs may run on; None: all."""


class Claim(Enum):
    """By what right a team could take slots now, or why it could not."""

    GUARANTEED = "within its nominal quota"
    BORROWED = "from what is idle"
    OVER_LIMIT = "it would hold more than nominal quota and borrowing limit"
    NOT_NOW = "what is free just now is kept for teams that do not lend it"
    NOT_LENT = "even of an empty cluster, others do not lend so many"
    TAKES_BACK = "it waits for its own quota, and borrows nothing meanwhile"
    BEHIND = "beside it an older job of its team, which waits, could not have so many"

    @property
    def is_granted(self) -> bool:
        return self is Claim.GUARANTEED or self is Claim.BORROWED

    @property
    def is_barred(self) -> bool:
        """Whether no slot that comes free changes it, but for those that the team itself hands back."""
        return self in (Claim.OVER_LIMIT, Claim.NOT_LENT, Claim.BEHIND)


@dataclass(frozen=True)
class Waits:
    """A job that finds nothing. `with_earlier`: its slots, and what its team has held since before it came.

    Where these are too many, it waits for jobs that have not passed it, and nobody waits with it for those.
    """

    job_id: str
    slots: int
    with_earlier: int


NO_QUOTA = Quota()
NO_SHARE = TeamShare()


class Books:
    """Who holds how much of what, from the start of a pass on. All figures are slots by (team, type)."""

    def __init__(
        self, nodes: Iterable[Node], running: Iterable[Running], teams: Mapping[str, TeamShare]
    ) -> None:
        self._teams = teams
        self._quotas = {
            (team, accelerator): quota
            for team, share in teams.items()
            for accelerator, quota in share.quotas.items()
        }
        self.used: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._taking_back: set[tuple[str, str]] = set()
        self._runs: defaultdict[tuple[str, str], list[Running]] = defaultdict(list)
        for job in running:
            self.used[job.team, job.accelerator] += job.slots
            self._runs[job.team, job.accelerator].append(job)
        self._free: defaultdict[str, int] = defaultdict(int)
        self._size: defaultdict[str, int] = defaultdict(int)
        for node in nodes:
            self._free[node.accelerator] += len(node.free_slots)
            self._size[node.accelerator] += node.n_slots
        self._unlent: defaultdict[str, int] = defaultdict(int)
        self._idle_unlent: defaultdict[str, int] = defaultdict(int)
        for (team, accelerator), quota in self._quotas.items():
            self._unlent[accelerator] += quota.unlent
            self._idle_unlent[accelerator] += self._idle_unlent_of(team, accelerator)

    def share(self, team: str) -> TeamShare:
        return self._teams.get(team, NO_SHARE)

    def quota(self, team: str, accelerator: str) -> Quota:
        return self._quotas.get((team, accelerator), NO_QUOTA)

    def claim(self, team: str, accelerator: str, slots: int) -> Claim:
        """By what right the team could take so many more, or why not."""
        quota = self.quota(team, accelerator)
        would_hold = self.used[team, accelerator] + slots
        if would_hold <= quota.nominal:
            return Claim.GUARANTEED
        if (team, accelerator) in self._taking_back:
            return Claim.TAKES_BACK
        if quota.borrowing_limit is not None and would_hold > quota.nominal + quota.borrowing_limit:
            return Claim.OVER_LIMIT
        return self._borrowing(team, accelerator, slots, quota)

    def leaves_enough(self, team: str, accelerator: str, slots: int, older: Waits) -> bool:
        """Whether so many more leave an older job of the team, which waits, what it waits for.

        That is its part of the team's limits. And while the nominal quota, which could hold the older job, is
        not all used, the younger ones use no more of it than the older one leaves, and borrow none: else they
        would fill what comes free of it for ever.
        """
        nominal, used = self.quota(team, accelerator).nominal, self.used[team, accelerator]
        if used < nominal and older.with_earlier <= nominal:
            return used + slots + older.slots <= nominal
        return not self.claim(team, accelerator, slots + older.slots).is_barred

    def held_since(self, team: str, accelerator: str, moment: float) -> int:
        """How many of the slots that it holds it has held since before that moment."""
        return sum(job.slots for job in self._runs[team, accelerator] if job.started_at <= moment)

    def could_hold(self, team: str, accelerator: str, slots: int) -> bool:
        """Whether it may have so many in all, if nobody borrows."""
        quota = self.quota(team, accelerator)
        if quota.borrowing_limit is not None and slots > quota.nominal + quota.borrowing_limit:
            return False
        unlent = self._unlent[accelerator] - quota.unlent
        return slots <= max(quota.nominal, self._size[accelerator] - unlent)

    def take(self, team: str, accelerator: str, slots: int) -> None:
        """The team has taken free slots."""
        self._free[accelerator] -= slots
        self._hold(team, accelerator, slots)

    def promise(self, team: str, accelerator: str, slots: int) -> None:
        """The team gets slots of its own quota back that others still hold; until then it borrows none."""
        self._hold(team, accelerator, slots)
        self._taking_back.add((team, accelerator))

    def set_aside(self, accelerator: str, slots: int) -> None:
        """Free slots are kept for a job that waits: they are no longer there to be borrowed."""
        self._free[accelerator] -= slots

    def _borrowing(self, team: str, accelerator: str, slots: int, quota: Quota) -> Claim:
        unlent = self._unlent[accelerator] - quota.unlent
        if self.used[team, accelerator] + slots + unlent > self._size[accelerator] and unlent:
            return Claim.NOT_LENT
        idle = self._idle_unlent[accelerator] - self._idle_unlent_of(team, accelerator)
        return Claim.NOT_NOW if idle and self._free[accelerator] - slots < idle else Claim.BORROWED

    def _hold(self, team: str, accelerator: str, slots: int) -> None:
        self._idle_unlent[accelerator] -= self._idle_unlent_of(team, accelerator)
        self.used[team, accelerator] += slots
        self._idle_unlent[accelerator] += self._idle_unlent_of(team, accelerator)

    def _idle_unlent_of(self, team: str, accelerator: str) -> int:
        return max(0, self.quota(team, accelerator).unlent - self.used[team, accelerator])
