"""What the rows say of stored files: for the sweep, which decides by `shared/domain/sweeping.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine, delete, exists, func, select
from sqlalchemy.orm import Session, aliased

from shared.db.clock import seconds_ago, seconds_since
from shared.db.models import Artifact, Attempt, Checkpoint, File, Job, Team
from shared.domain.job import FINAL_JOB_STATES, LIVE_ATTEMPT_STATES
from shared.domain.sweeping import (
    AttemptPlace,
    AttemptRow,
    CheckpointRow,
    JobRow,
    Place,
    Rows,
    UploadPlace,
    UploadRow,
)

_SWEEP_LOCK = 7241003


@contextmanager
def sweep_lock(engine: Engine) -> Iterator[bool]:
    """Whether this process is the one that sweeps now; until the block ends, or its connection does.

    Held by a session, not a transaction: nothing of the database waits while the store is asked.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        is_ours = bool(connection.scalar(select(func.pg_try_advisory_lock(_SWEEP_LOCK))))
        try:
            yield is_ours
        finally:
            if is_ours:
                connection.execute(select(func.pg_advisory_unlock(_SWEEP_LOCK)))


def rows_about(session: Session, places: Collection[Place]) -> Rows:
    """All that is known of what lies in these places."""
    outputs = [place for place in places if isinstance(place, AttemptPlace)]
    job_ids = {place.job_id for place in outputs}
    return Rows(
        gone_teams=_gone_teams(session, {place.team_id for place in places}),
        uploads=_uploads(session, {place.file_id for place in places if isinstance(place, UploadPlace)}),
        jobs=_jobs(session, job_ids),
        attempts=_attempts(session, {place.attempt_id for place in outputs}),
        checkpoints=_checkpoints(session, job_ids),
        artifacts=frozenset(
            session.scalars(select(Artifact.storage_key).where(Artifact.job_id.in_(job_ids)))
        ),
    )


def dropped_checkpoints(session: Session, *, grace_s: float, limit: int) -> Sequence[tuple[str, str]]:
    """(id, where it lies) of checkpoints that were dropped at least `grace_s` ago, the oldest first."""
    found = session.execute(
        select(Checkpoint.id, Checkpoint.storage_prefix)
        .where(Checkpoint.dropped_at <= seconds_ago(grace_s))
        .order_by(Checkpoint.dropped_at)
        .limit(limit)
    )
    return [(id, prefix) for id, prefix in found]


def forget_checkpoint(session: Session, checkpoint_id: str) -> None:
    """Remove the row of a dropped checkpoint, now that nothing of it is left in the store."""
    session.execute(
        delete(Checkpoint).where(Checkpoint.id == checkpoint_id, Checkpoint.dropped_at.is_not(None))
    )


def _gone_teams(session: Session, ids: Collection[str]) -> dict[str, float]:
    rows = session.execute(
        select(Team.id, seconds_since(Team.deleted_at)).where(Team.id.in_(ids), Team.deleted_at.is_not(None))
    )
    return {id: deleted for id, deleted in rows if deleted is not None}


def _uploads(session: Session, ids: Collection[str]) -> dict[str, UploadRow]:
    rows = session.execute(
        select(File.id, File.team_id, File.storage_key, seconds_since(File.deleted_at)).where(
            File.id.in_(ids)
        )
    )
    return {id: UploadRow(team_id, key, deleted) for id, team_id, key, deleted in rows}


def _jobs(session: Session, ids: Collection[str]) -> dict[str, JobRow]:
    user = aliased(Job)
    is_used = exists().where(user.base_job_id == Job.id, user.finished_at.is_(None))
    is_live = exists().where(Attempt.job_id == Job.id, Attempt.state.in_(LIVE_ATTEMPT_STATES))
    is_needed = Job.state.not_in(FINAL_JOB_STATES) | is_used | is_live
    rows = session.execute(
        select(Job.id, Job.team_id, is_needed, seconds_since(Job.deleted_at)).where(Job.id.in_(ids))
    )
    return {id: JobRow(team_id, needed, deleted) for id, team_id, needed, deleted in rows}


def _attempts(session: Session, ids: Collection[str]) -> dict[str, AttemptRow]:
    rows = session.execute(
        select(Attempt.id, Attempt.job_id, seconds_since(Attempt.ended_at)).where(Attempt.id.in_(ids))
    )
    return {id: AttemptRow(job_id, ended) for id, job_id, ended in rows}


def _checkpoints(session: Session, job_ids: Collection[str]) -> dict[str, CheckpointRow]:
    """By where they lie."""
    is_taken_up = exists().where(
        Attempt.job_id == Checkpoint.job_id,
        Attempt.resume_from == Checkpoint.id,
        Attempt.state.in_(LIVE_ATTEMPT_STATES),
    )
    rows = session.execute(
        select(
            Checkpoint.storage_prefix,
            Checkpoint.attempt_id,
            is_taken_up,
            seconds_since(Checkpoint.dropped_at),
        ).where(Checkpoint.job_id.in_(job_ids))
    )
    return {
        prefix: CheckpointRow(attempt_id, taken_up, dropped) for prefix, attempt_id, taken_up, dropped in rows
    }
