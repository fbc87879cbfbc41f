"""What is left of a team that is gone: who held which slots when, which usage counts, and nothing else.

Events, figures, checkpoints and artifacts lose their rows; those of jobs, tries and files, which name one
another, are emptied. The files in the store go by the team's own row, see `shared/domain/sweeping.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, case, delete, exists, func, literal, null, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from shared.db.batches import remove_some
from shared.db.clock import now
from shared.db.models import Allocation, Artifact, Attempt, Checkpoint, Event, File, Job, Metric, Team

_JOBS_A_STEP = 50
_FILES_A_STEP = 500
_ROWS_A_STEP = 5000
_OF_A_JOB = (Event, Metric, Checkpoint, Artifact)


def teams_to_erase(session: Session) -> Sequence[str]:
    """The teams that are gone and have rows that were not emptied."""
    is_due = Team.deleted_at.is_not(None), Team.erased_at.is_(None)
    return session.scalars(select(Team.id).where(*is_due).order_by(Team.deleted_at)).all()


def erase_some(session: Session, team_id: str) -> bool:
    """Empty some rows of a team that is gone. Whether there is more to do, and nobody else is at it."""
    is_due = Team.id == team_id, Team.deleted_at.is_not(None), Team.erased_at.is_(None)
    team = session.scalars(select(Team).where(*is_due).with_for_update(skip_locked=True)).one_or_none()
    if team is None:
        return False
    if _erase_jobs(session, team_id) or _erase_files(session, team_id):
        return True
    team.erased_at = now(session)
    return False


def _erase_jobs(session: Session, team_id: str) -> bool:
    """Whether there were any left."""
    is_left = Job.deleted_at.is_not(None), Job.erased_at.is_(None)
    rest = select(Job.id).where(Job.team_id == team_id, *is_left).order_by(Job.id)
    jobs = session.scalars(rest.limit(_JOBS_A_STEP)).all()
    if not jobs:
        return False
    removed = [remove_some(session, table, table.job_id.in_(jobs), limit=_ROWS_A_STEP) for table in _OF_A_JOB]
    if max(removed) < _ROWS_A_STEP:
        _empty(session, jobs)
    return True


def _empty(session: Session, jobs: Sequence[str]) -> None:
    nothing = literal({}, JSONB)
    tries = select(Attempt.id).where(Attempt.job_id.in_(jobs))
    for query in (
        update(Allocation).where(Allocation.attempt_id.in_(tries)).values(error=null()),
        update(Attempt).where(Attempt.job_id.in_(jobs)).values(error=null()),
        update(Job)
        .where(Job.id.in_(jobs))
        .values(
            spec=nothing,
            resolved=nothing,
            freeze_plan=case((Job.freeze_plan.is_not(None), nothing), else_=null()),
            changes=literal([], JSONB),
            **dict.fromkeys(("progress", "result", "error", "wait_reason"), null()),
            erased_at=func.clock_timestamp(),
        ),
    ):
        session.execute(query.execution_options(synchronize_session=False))


def _erase_files(session: Session, team_id: str) -> bool:
    """Whether there were any left. Those that a job names stay, without a word of what they held."""
    # Every file has a hash, until it is emptied.
    rest = select(File.id).where(File.team_id == team_id, File.sha256 != "").order_by(File.id)
    files = session.scalars(rest.limit(_FILES_A_STEP)).all()
    if not files:
        return False
    emptied = {"filename": "", "sha256": "", "details": literal({}, JSONB)}
    for query in (
        delete(File).where(File.id.in_(files), ~_is_named()),
        update(File).where(File.id.in_(files)).values(**emptied),
    ):
        session.execute(query.execution_options(synchronize_session=False))
    return True


def _is_named() -> ColumnElement[bool]:
    named_by = (Job.training_file_id, Job.validation_file_id, Job.weights_file_id)
    return or_(*(exists().where(column == File.id) for column in named_by))
