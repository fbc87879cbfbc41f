"""What teams have kept for long enough: found by its age, looked at again under its lock, and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Integer,
    Select,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from shared.db.deletion import mark_deleted
from shared.db.history import lock_job
from shared.db.models import File, Job, TeamLimit
from shared.domain.job import FINAL_JOB_STATES
from shared.domain.keeping import DAY_S, Kept, is_due

BATCH = 100


def oldest_jobs(session: Session) -> list[Kept]:
    """Jobs that were over for longer than their teams keep any, those that are due first."""
    return _read(session, _jobs().limit(BATCH))


def oldest_files(session: Session) -> list[Kept]:
    """Uploads that are older than their teams keep any, those that are due first."""
    return _read(session, _files().limit(BATCH))


def delete_job_if_due(session: Session, job_id: str, *, actor: str) -> bool:
    """Delete a job unless it has become needed, or was deleted, since it was found."""
    job = lock_job(session, job_id)
    found = _read(session, _jobs().where(Job.id == job_id))
    if not any(map(is_due, found)):
        return False
    days = found[0].keep_days
    mark_deleted(
        session, job, actor=actor, reason=f"deleted: its team keeps what is not needed for {days} days"
    )
    return True


def delete_file_if_due(session: Session, file_id: str) -> bool:
    """Delete a file unless it has become needed, or was deleted, since it was found. Its bytes are swept."""
    file = session.get_one(File, file_id, with_for_update=True)
    if not any(map(is_due, _read(session, _files().where(File.id == file_id)))):
        return False
    file.deleted_at = session.scalar(select(func.clock_timestamp()))
    return True


def _jobs() -> Select[Any]:
    user = aliased(Job)
    return _idle(Job, Job.finished_at, TeamLimit.keep_jobs_days, user, user.base_job_id == Job.id).where(
        Job.state.in_(FINAL_JOB_STATES)
    )


def _files() -> Select[Any]:
    user = aliased(Job)
    named_by = (user.training_file_id, user.validation_file_id, user.weights_file_id)
    needs = or_(*(column == File.id for column in named_by))
    return _idle(File, File.created_at, TeamLimit.keep_files_days, user, needs)


def _idle(
    entity: type[Job] | type[File],
    since: InstrumentedAttribute[Any],
    keep_days: InstrumentedAttribute[int | None],
    user: Any,
    needs: ColumnElement[bool],
) -> Select[Any]:
    """(id, days, seconds idle) of all that is older than it is kept; what is longest overdue comes first.

    `user`: the jobs that may need it, those for which `needs` holds.
    """
    uses = (
        select(
            func.max(user.finished_at).label("last"),
            func.bool_or(user.state.not_in(FINAL_JOB_STATES)).label("is_needed"),
        )
        .where(needs)
        .lateral("uses")
    )
    idle_for_s = _seconds_since(func.greatest(since, uses.c.last))
    idle = case((func.coalesce(uses.c.is_needed, False), None), else_=idle_for_s)
    kept_s = cast(keep_days, Float) * DAY_S
    return (
        select(entity.id, cast(keep_days, Integer), idle)
        .join(TeamLimit, TeamLimit.team_id == entity.team_id)
        .join(uses, true())
        .where(
            keep_days.is_not(None),
            entity.deleted_at.is_(None),
            since < func.clock_timestamp() - func.make_interval(literal(0), 0, 0, keep_days),
        )
        .order_by((idle - kept_s).desc().nulls_last(), entity.id)
    )


def _seconds_since(moment: ColumnElement[datetime]) -> ColumnElement[float]:
    return cast(func.extract("epoch", func.clock_timestamp() - moment), Float)


def _read(session: Session, query: Select[Any]) -> list[Kept]:
    rows: Sequence[Any] = session.execute(query).all()
    return [Kept(id, days, idle_for_s) for id, days, idle_for_s in rows]
