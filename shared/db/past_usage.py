"""What teams have held until now, decayed: the memory of fair share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Float,
    SQLColumnExpression,
    and_,
    cast,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.orm import Session

from shared.db.clock import now
from shared.db.models import Allocation, Attempt, Job
from shared.domain.job import AllocationState

Usage = Mapping[tuple[str, str], float]
"""(team, accelerator type) -> slots held on average, as `held_on_average` of the domain counts each."""

_HALF_LIVES = 10  # what is older counts less than a thousandth
# An end is stamped a moment before it is committed: what is younger is looked at anew each time.
_SETTLED_AFTER = timedelta(seconds=60)


class PastUsage:
    """What all teams have held, for a process that asks again and again: what has ended is summed up once.

    All that has ended decays alike, so its sum at one moment tells its sum at each later one. Any thread may
    ask.
    """

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._lock = Lock()
        self._ended: Usage = {}
        self._until: datetime | None = None
        """Up to which end they are in the sum, which is that of this moment."""

    def read(self, session: Session) -> Usage:
        """What all teams have held until now."""
        with self._lock:
            moment = now(session)
            self._settle(session, moment - _SETTLED_AFTER)
            young = or_(Allocation.ended_at > self._until, Allocation.state == AllocationState.CLAIMED)
            return self._with(_summed(session, moment, self._half_life_s, young), moment)

    def _settle(self, session: Session, until: datetime) -> None:
        """Add what has ended since, by its weight at that moment; the first time all that counts."""
        since = self._until or until - timedelta(seconds=self._half_life_s * _HALF_LIVES)
        if since >= until:
            return
        ended = and_(Allocation.ended_at > since, Allocation.ended_at <= until)
        self._ended = self._with(_summed(session, until, self._half_life_s, ended), until)
        self._until = until

    def _with(self, more: Usage, moment: datetime) -> Usage:
        """What is left of the sum at that moment, and more."""
        later_s = (moment - self._until).total_seconds() if self._until else 0.0
        left = 0.5 ** (later_s / self._half_life_s)
        keys = self._ended.keys() | more.keys()
        return {key: self._ended.get(key, 0.0) * left + more.get(key, 0.0) for key in keys}


def _summed(session: Session, moment: datetime, half_life_s: float, held: ColumnElement[bool]) -> Usage:
    """What these allocations count for at that moment."""
    until = func.coalesce(Allocation.ended_at, _at(moment))
    decayed = _weight(until, moment, half_life_s) - _weight(Allocation.claimed_at, moment, half_life_s)
    rows = session.execute(
        select(Job.team_id, Allocation.accelerator, func.sum(func.cardinality(Allocation.slots) * decayed))
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(Allocation.claimed_at.is_not(None), held)
        .group_by(Job.team_id, Allocation.accelerator)
    )
    return {(team, accelerator): float(slots) for team, accelerator, slots in rows}


def _weight(then: SQLColumnExpression[Any], moment: datetime, half_life_s: float) -> ColumnElement[float]:
    """How much it still counts: 1 at the moment, a half one half-life before."""
    ago_s = cast(func.extract("epoch", _at(moment) - then), Float)
    # Postgres refuses a power so small that it is zero.
    return func.power(cast(0.5, Float), func.least(ago_s / half_life_s, 100.0))


def _at(moment: datetime) -> ColumnElement[datetime]:
    return literal(moment, DateTime(timezone=True))
