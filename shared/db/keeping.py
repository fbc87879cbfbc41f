"""What teams have kept for long enough: found by its age, looked at again under its lock, and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Float, Integer, case, cast, exists, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from shared.db.clock import now
from shared.db.deletion import mark_deleted
from shared.db.history import lock_job
from shared.db.models import File, Job, TeamLimit
from shared.domain.keeping import DAY_S, Kept, is_due

BATCH = 100


@dataclass(frozen=True)
class _Kind:
    """Jobs that are over, or uploads: since when each is kept and for how long, and where jobs name it."""

    entity: type[Job] | type[File]
    since: InstrumentedAttribute[Any]
    keep_days: InstrumentedAttribute[int | None]
    named_by: tuple[str, ...]


_JOBS = _Kind(Job, Job.finished_at, TeamLimit.keep_jobs_days, ("base_job_id",))
_FILES = _Kind(
    File,
    File.created_at,
    TeamLimit.keep_files_days,
    ("training_file_id", "validation_file_id", "weights_file_id"),
)


def due_jobs(session: Session) -> Sequence[str]:
    """Some of the jobs that are over and that their teams keep no longer."""
    return _due(session, _JOBS)


def due_files(session: Session) -> Sequence[str]:
    """Some of the uploads that their teams keep no longer."""
    return _due(session, _FILES)


def delete_job_if_due(session: Session, job_id: str, *, actor: str) -> bool:
    """Delete a job unless it has become needed, or was deleted, since it was found."""
    job = lock_job(session, job_id)
    kept = _kept(session, _JOBS, job_id)
    if kept is None or not is_due(kept):
        return False
    reason = f"deleted: its team keeps what is not needed for {kept.keep_days} days"
    mark_deleted(session, job, actor=actor, reason=reason)
    return True


def delete_file_if_due(session: Session, file_id: str) -> bool:
    """Delete a file unless it has become needed, or was deleted, since it was found. Its bytes are swept."""
    file = session.get_one(File, file_id, with_for_update=True)
    kept = _kept(session, _FILES, file_id)
    if kept is None or not is_due(kept):
        return False
    file.deleted_at = now(session)
    return True


def _due(session: Session, kind: _Kind) -> Sequence[str]:
    """Of each team the oldest first.

    Team by team and in the order of an index, which ends where nothing older is left: as a rule nothing is
    due, and the planner, which cannot know that, would else read a whole table.
    """
    entity = kind.entity
    age = func.make_interval(0, 0, 0, kind.keep_days)
    found = (
        select(entity.id)
        .where(
            entity.team_id == TeamLimit.team_id,
            entity.deleted_at.is_(None),
            kind.since < func.statement_timestamp() - age,
            _idle_for_s(kind) >= cast(kind.keep_days, Float) * DAY_S,
        )
        .order_by(kind.since)
        .limit(BATCH)
        .lateral("found")
    )
    query = select(found.c.id).select_from(TeamLimit).join(found, true())
    return session.scalars(query.where(kind.keep_days.is_not(None)).limit(BATCH)).all()


def _kept(session: Session, kind: _Kind, id: str) -> Kept | None:
    """What is to be known of one of them; None where it was deleted, or its team keeps all for ever."""
    entity = kind.entity
    row = session.execute(
        select(entity.id, cast(kind.keep_days, Integer), _idle_for_s(kind))
        .join(TeamLimit, TeamLimit.team_id == entity.team_id)
        .where(entity.id == id, entity.deleted_at.is_(None), kind.keep_days.is_not(None))
    ).one_or_none()
    return Kept(*row) if row is not None else None


def _idle_for_s(kind: _Kind) -> ColumnElement[float | None]:
    """Seconds since it was over or uploaded, or last needed; null while an unfinished job needs it."""
    user = aliased(Job)
    names = [getattr(user, name) == kind.entity.id for name in kind.named_by]
    is_needed = or_(*(exists().where(names_it, user.finished_at.is_(None)) for names_it in names))
    last = [select(func.max(user.finished_at)).where(names_it).scalar_subquery() for names_it in names]
    ago = func.statement_timestamp() - func.greatest(kind.since, *last)
    return case((is_needed, None), else_=cast(func.extract("epoch", ago), Float))
