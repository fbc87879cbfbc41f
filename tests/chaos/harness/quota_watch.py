"""Looks at what teams hold several times a second while a run goes on, whatever is done to the database."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Self

from harness.quotas import Span, is_borrowed, over_quota, states
from harness.teams import Owed
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from shared.db.engine import for_single_reads, make_engine

_EVERY_S = 0.2
_ANSWER_WITHIN_S = 2.0

_OF_TEAMS = """
join attempts on attempts.id = allocations.attempt_id
join jobs on jobs.id = attempts.job_id
join teams on teams.id = jobs.team_id
"""
# One statement, so one state: by the allocations that live, and by the slots themselves, which must agree.
_LOOK = text(f"""
select 'live' as what, teams.name as team, sum(cardinality(allocations.slots)) as n
from allocations {_OF_TEAMS} where allocations.state in ('offered', 'claimed') group by teams.name
union all
select 'held', teams.name, count(*)
from slots join allocations on allocations.id = slots.allocation_id {_OF_TEAMS} group by teams.name
union all
select 'dirty', '', count(*) filter (where state = 'dirty') from slots
union all
select 'all', '', count(*) from slots
""")
_HISTORY = text(f"""
select teams.name as team, cardinality(allocations.slots) as slots,
       extract(epoch from attempts.created_at)::float as since,
       extract(epoch from allocations.ended_at)::float as until
from allocations {_OF_TEAMS}
""")


@dataclass
class Looks:
    """What was seen. `borrowed`: of how many looks a team held more than its own; times in seconds."""

    seen: int = 0
    in_vain: int = 0
    borrowed: int = 0
    most_dirty: int = 0
    longest_gap_s: float = 0.0
    changes: int = 0
    over: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"quotas: looked at {self.seen} times ({self.in_vain} more in vain, {self.longest_gap_s:.1f} s "
            f"between two at most) and after each of {self.changes} changes; in {self.borrowed} looks a team "
            f"held more than its own; {self.most_dirty} slots were dirty at most"
        )


class QuotaWatch:
    """A thread with a connection of its own for as long as the block lasts; then all of the history."""

    def __init__(self, database_url: str, owed: Mapping[str, Owed]) -> None:
        self.looks = Looks()
        self._owed = owed
        self._engine = make_engine(database_url, statement_timeout_s=_ANSWER_WITHIN_S, pool_size=1)
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="quotas", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            self._go_through_history()
        self._engine.dispose()

    def _watch(self) -> None:
        engine, last = for_single_reads(self._engine), time.monotonic()
        while not self._stop.wait(_EVERY_S):
            try:
                self._look(engine)
            except DBAPIError:
                self.looks.in_vain += 1
                continue
            now = time.monotonic()
            self.looks.longest_gap_s = max(self.looks.longest_gap_s, now - last)
            last = now

    def _look(self, engine: Engine) -> None:
        live: dict[str, int] = {}
        held: dict[str, int] = {}
        sums: dict[str, int] = {}
        with engine.connect() as connection:
            for what, team, n in connection.execute(_LOOK):
                of = {"live": live, "held": held}.get(what, sums)
                of[team or what] = int(n)
        self.looks.seen += 1
        self.looks.borrowed += is_borrowed(held, self._owed)
        self.looks.most_dirty = max(self.looks.most_dirty, sums["dirty"])
        self.looks.over.update(over_quota(held, self._owed, sums["all"]))
        if live != held:
            self.looks.over[f"by allocations teams held {live}, and by slots {held}"] += 1

    def _go_through_history(self) -> None:
        with self._engine.connect() as connection:
            size = sum(int(n) for what, _, n in connection.execute(_LOOK) if what == "all")
            spans = [
                Span(row.team, row.slots, row.since, math.inf if row.until is None else row.until)
                for row in connection.execute(_HISTORY)
            ]
        for held in states(spans):
            self.looks.changes += 1
            self.looks.over.update(over_quota(held, self._owed, size))
