"""What teams have held until now, decayed: the memory of fair share."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Float, SQLColumnExpression, cast, func, or_, select
from sqlalchemy.orm import Session

from shared.db.clock import seconds_ago
from shared.db.models import Allocation, Attempt, Job
from shared.domain.job import AllocationState

_HALF_LIVES = 10  # what is older counts less than a thousandth


def past_usage(
    session: Session, *, half_life_s: float, team_id: str | None = None
) -> dict[tuple[str, str], float]:
    """(team, accelerator type) -> slots held on average, as `held_on_average` of the domain counts each."""
    ended_at = func.coalesce(Allocation.ended_at, func.clock_timestamp())
    decayed = _weight(ended_at, half_life_s) - _weight(Allocation.claimed_at, half_life_s)
    query = (
        select(Job.team_id, Allocation.accelerator, func.sum(func.cardinality(Allocation.slots) * decayed))
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(
            Allocation.claimed_at.is_not(None),
            or_(
                Allocation.ended_at > seconds_ago(half_life_s * _HALF_LIVES),
                Allocation.state == AllocationState.CLAIMED,
            ),
        )
        .group_by(Job.team_id, Allocation.accelerator)
    )
    rows = session.execute(query if team_id is None else query.where(Job.team_id == team_id))
    return {(team, accelerator): float(slots) for team, accelerator, slots in rows}


def _weight(moment: SQLColumnExpression[Any], half_life_s: float) -> ColumnElement[float]:
    """How much the moment still counts: 1 now, a half one half-life ago."""
    ago_s = cast(func.extract("epoch", func.clock_timestamp() - moment), Float)
    # Postgres refuses a power so small that it is zero.
    return func.power(cast(0.5, Float), func.least(ago_s / half_life_s, 100.0))
