"""Checkpoints in the store: which is the newest, which go, and which cannot be used.

A job's pointer to its newest checkpoint is the order of these rows, so nothing has to be moved and nothing
can point astray. A row is added under the fence, once its manifest stands in the store: only a live attempt
adds one, and no two do at once. Attempts count before steps: one that went back to an earlier checkpoint, as
the newest was damaged, writes smaller steps than are there, and they are what the job goes on from. Of one
attempt a step that arrives late changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, func, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.fence import lock_writer
from shared.db.history import record
from shared.db.kept_work import keep_up_to
from shared.db.models import Attempt, Checkpoint, Job
from shared.db.storable import plain, storable
from shared.domain.events import CHECKPOINT_MISMATCH, UNUSABLE_CHECKPOINT, CheckpointManifest
from shared.domain.retention import KEPT_UNLESS_TOLD, superfluous
from shared.ids import new_id

NEWEST_FIRST = (Attempt.number.desc(), Checkpoint.step.desc())


def usable(job_id: str) -> Select[Checkpoint]:
    """The checkpoints that a job may go on from, the newest first: neither dropped nor known as damaged."""
    return _usable(Checkpoint.job_id == job_id).order_by(*NEWEST_FIRST)


def _usable(of_jobs: ColumnElement[bool]) -> Select[Checkpoint]:
    return (
        select(Checkpoint)
        .join(Attempt, Attempt.id == Checkpoint.attempt_id)
        .where(of_jobs, Checkpoint.dropped_at.is_(None), Checkpoint.damaged_at.is_(None))
    )


def newest_checkpoints(session: Session, job_ids: Collection[str]) -> dict[str, str]:
    """By job: what its next attempt goes on from, where there is anything."""
    rows = session.execute(
        _usable(Checkpoint.job_id.in_(job_ids))
        .with_only_columns(Checkpoint.job_id, Checkpoint.id)
        .ext(distinct_on(Checkpoint.job_id))
        .order_by(Checkpoint.job_id, *NEWEST_FIRST)
    )
    return dict(rows.all())


def add_checkpoint(
    session: Session, *, token: UUID, manifest: CheckpointManifest, storage_prefix: str, actor: str
) -> bool:
    """Store that a whole checkpoint stands in the store below `storage_prefix`. False: token lost.

    Those that are superfluous now are marked as dropped, for a sweep to remove their files. A second time
    with the same step is the first one tried again: nothing changes.
    """
    found = lock_writer(session, token)
    if found is None:
        return False
    job, attempt = found
    added = session.scalar(
        upsert(Checkpoint)
        .values(
            id=new_id("ftckpt"),
            job_id=job.id,
            attempt_id=attempt.id,
            epoch=manifest.epoch,
            step=manifest.step,
            is_best=manifest.is_best,
            storage_prefix=storage_prefix,
            manifest=plain(manifest),
        )
        .on_conflict_do_nothing(index_elements=["attempt_id", "step"])
        .returning(Checkpoint.id)
    )
    if added is not None:
        _tell(session, job, manifest, added, _drop_superfluous(session, job), actor)
    return True


def go_on_from(session: Session, *, token: UUID, checkpoint_id: str | None, actor: str) -> bool:
    """Store what the attempt goes on from, now that it is fetched; None: it starts anew. False: token lost.

    A job that has checkpoints, none of which can be used, is told so.
    """
    found = lock_writer(session, token)
    if found is None:
        return False
    job, attempt = found
    if checkpoint_id is None:
        _tell_of_start_anew(session, job, attempt, actor)
    attempt.resume_from = checkpoint_id
    keep_up_to(session, attempt, checkpoint_id)
    return True


def leave_out(session: Session, *, token: UUID, checkpoint_id: str, why: str, actor: str) -> bool:
    """Store that a checkpoint cannot be used, and tell it once. False: token lost."""
    found = lock_writer(session, token)
    if found is None:
        return False
    _mark_damaged(session, found[0], checkpoint_id, why, actor)
    return True


def leave_out_taken_up(session: Session, job: Job, attempt: Attempt, actor: str) -> bool:
    """Whether `attempt` ended because of the checkpoint that it went on from, which is left out from now on.

    Each such end leaves one checkpoint less, so a job cannot come back for ever. Where the nodes of a gang
    went on from two, as the first had to leave out a newer one, it is that one which is left out.
    """
    error = attempt.error or {}
    if error.get("code") not in UNUSABLE_CHECKPOINT:
        return False
    if attempt.nodes > 1 and error["code"] == CHECKPOINT_MISMATCH and _has_left_one_out(session, attempt):
        return True
    if attempt.resume_from is None:
        return False
    return _mark_damaged(session, job, attempt.resume_from, str(error["message"]), actor)


def _has_left_one_out(session: Session, attempt: Attempt) -> bool:
    of_its_time = exists().where(
        Checkpoint.job_id == attempt.job_id, Checkpoint.damaged_at >= attempt.created_at
    )
    return bool(session.scalar(select(of_its_time)))


def _mark_damaged(session: Session, job: Job, checkpoint_id: str, why: str, actor: str) -> bool:
    step = session.scalar(
        update(Checkpoint)
        .where(Checkpoint.id == checkpoint_id, Checkpoint.job_id == job.id, Checkpoint.damaged_at.is_(None))
        .values(damaged_at=func.clock_timestamp())
        .returning(Checkpoint.step)
        .execution_options(synchronize_session=False)
    )
    if step is None:
        return False
    record(
        session,
        job,
        "note",
        storable(f"The checkpoint at step {step} cannot be used, an earlier one is tried: {why}"),
        actor=actor,
        level="warn",
        data={"code": "damaged_checkpoint", "checkpoint": checkpoint_id, "step": step},
    )
    return True


def _tell_of_start_anew(session: Session, job: Job, attempt: Attempt, actor: str) -> None:
    of_earlier = (Checkpoint.job_id == job.id, Checkpoint.attempt_id != attempt.id)
    n = session.scalar(select(func.count()).where(*of_earlier, Checkpoint.damaged_at.is_not(None)))
    if n:
        record(
            session,
            job,
            "note",
            f"None of the job's checkpoints can be used ({n} damaged): it starts anew.",
            actor=actor,
            level="warn",
            data={"code": "starts_anew", "damaged": n},
        )


def _drop_superfluous(session: Session, job: Job) -> list[str]:
    """Mark as dropped what is more than the job keeps, and what is damaged: a newer one is whole now."""
    going = superfluous(session.scalars(usable(job.id)).all(), _limit(job))
    damaged = session.scalars(
        select(Checkpoint.id).where(
            Checkpoint.job_id == job.id, Checkpoint.damaged_at.is_not(None), Checkpoint.dropped_at.is_(None)
        )
    )
    going += damaged
    session.execute(
        update(Checkpoint)
        .where(Checkpoint.id.in_(going))
        .values(dropped_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )
    return going


def _limit(job: Job) -> int:
    """Jobs of versions before the limit, and those that train nothing, do not have it."""
    limit: int = job.resolved.get("hyperparameters", {}).get("save_total_limit", KEPT_UNLESS_TOLD)
    return limit


def _tell(
    session: Session, job: Job, manifest: CheckpointManifest, id: str, dropped: Sequence[str], actor: str
) -> None:
    record(
        session,
        job,
        "checkpoint",
        f"Checkpoint at step {manifest.step}, with {manifest.epoch} epoch{'s' * (manifest.epoch != 1)} done.",
        actor=actor,
        data={
            "checkpoint": id,
            "step": manifest.step,
            "metrics": plain(manifest)["metrics"],
            "dropped": list(dropped),
        },
    )
