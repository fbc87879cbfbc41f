"""What jobs held, summed up from what allocations say: from the claim to the end, or to now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Subquery,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.orm import Session

from shared.db.models import Allocation, ApiKey, Attempt, Job, Team
from shared.domain.job import FINAL_JOB_STATES, AllocationState, AttemptState, Outcome
from shared.domain.usage import Group, Named, Used, Window

_DAY = literal(timedelta(days=1), INTERVAL)


def used(
    session: Session,
    window: Window,
    groups: Sequence[Group],
    *,
    team_id: str | None,
    now: datetime,
    limit: int | None = None,
) -> list[Used]:
    """What was held within the window by one team's jobs, or by all (None), in the order of the groups.

    What goes on is counted up to `now`. Jobs that were deleted since are counted: they did hold it.
    """
    pieces = _pieces(_held(window, team_id, now), by_day=Group.DAY in groups)
    keys = [key for group in groups for key in _keys(pieces, group)]
    seconds = pieces.c.slots * func.extract("epoch", pieces.c.until - pieces.c.since)
    lost_from = func.greatest(pieces.c.since, pieces.c.wasted_from)
    lost = pieces.c.slots * func.extract("epoch", pieces.c.until - lost_from)
    query = (
        _with_names(select(*keys, pieces.c.accelerator), pieces, groups)
        .add_columns(
            func.sum(seconds).label("seconds"),
            func.coalesce(func.sum(lost).filter(pieces.c.wasted_from < pieces.c.until), 0).label("wasted"),
            func.count(pieces.c.job_id.distinct()).label("n_jobs"),
            func.count(pieces.c.attempt_id.distinct()).label("n_attempts"),
        )
        .group_by(*keys, pieces.c.accelerator)
        .order_by(*keys, pieces.c.accelerator)
    )
    return [_used(row, groups) for row in session.execute(query.limit(limit))]


def _held(window: Window, team_id: str | None, now: datetime) -> Subquery:
    """The allocations that held slots within the window, cut to it, and since when each was in vain."""
    since = func.greatest(Allocation.claimed_at, literal(window.start))
    until = func.least(func.coalesce(Allocation.ended_at, literal(now)), literal(window.end))
    query = (
        select(
            Job.team_id,
            Job.created_by,
            Job.model,
            Job.id.label("job_id"),
            Attempt.id.label("attempt_id"),
            Allocation.accelerator,
            func.cardinality(Allocation.slots).label("slots"),
            since.label("since"),
            until.label("until"),
            case((_is_in_vain(), func.coalesce(Attempt.kept_until, Allocation.claimed_at))).label(
                "wasted_from"
            ),
        )
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        # Each side of the "or" has an index of its own.
        .where(
            or_(Allocation.ended_at > window.start, Allocation.state == AllocationState.CLAIMED),
            Allocation.claimed_at < window.end,
            since < until,
        )
    )
    return (query if team_id is None else query.where(Job.team_id == team_id)).subquery("held")


def _is_in_vain() -> ColumnElement[bool]:
    """Whether it is settled that what the attempt did after `kept_until` led nowhere."""
    is_settled = or_(Attempt.kept_until.is_not(None), Job.state.in_(FINAL_JOB_STATES))
    without_result = Attempt.outcome.is_distinct_from(Outcome.SUCCEEDED)
    return and_(Attempt.state == AttemptState.ENDED, without_result, is_settled)


def _pieces(held: Subquery, *, by_day: bool) -> Subquery:
    """The same, parted at every midnight of UTC where days are asked for."""
    if not by_day:
        return held
    first = func.date_trunc("day", held.c.since, "UTC")
    series = select(func.generate_series(first, held.c.until, _DAY).label("day"))
    days = series.correlate(held).lateral("days")
    since = func.greatest(held.c.since, days.c.day)
    until = func.least(held.c.until, days.c.day + _DAY)
    cut = {"since": since, "until": until}
    kept = [cut[each.name].label(each.name) if each.name in cut else each for each in held.c]
    query: Select[Any] = select(*kept, days.c.day).select_from(held).join(days, true()).where(since < until)
    return query.subquery("pieces")


def _keys(pieces: Subquery, group: Group) -> list[ColumnElement[Any]]:
    match group:
        case Group.TEAM:
            return [Team.name.label("team"), pieces.c.team_id]
        case Group.PERSON:
            return [ApiKey.name.label("person"), pieces.c.created_by]
        case Group.MODEL:
            return [pieces.c.model]
        case Group.DAY:
            return [func.to_char(func.timezone("UTC", pieces.c.day), "YYYY-MM-DD").label("day_name")]


def _with_names(query: Select[Any], pieces: Subquery, groups: Sequence[Group]) -> Select[Any]:
    query = query.select_from(pieces)
    if Group.TEAM in groups:
        query = query.join(Team, Team.id == pieces.c.team_id)
    if Group.PERSON in groups:
        query = query.join(ApiKey, ApiKey.id == pieces.c.created_by)
    return query


def _used(row: Row[Any], groups: Sequence[Group]) -> Used:
    return Used(
        accelerator=row.accelerator,
        slot_seconds=row.seconds,
        wasted_slot_seconds=row.wasted,
        n_jobs=row.n_jobs,
        n_attempts=row.n_attempts,
        team=Named(row.team_id, row.team) if Group.TEAM in groups else None,
        person=Named(row.created_by, row.person) if Group.PERSON in groups else None,
        model=row.model if Group.MODEL in groups else None,
        day=row.day_name if Group.DAY in groups else None,
    )
