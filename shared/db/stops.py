"""Asking a job to stop and to go on: the rules of `shared/domain/stops.py` on its row."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.checkpoints import usable
from shared.db.history import move, record
from shared.db.models import Attempt, Checkpoint, Job
from shared.domain.changes import PRIORITY, Reached, SpecChange, in_words, with_changes
from shared.domain.job import JobState, StopReason
from shared.domain.stops import Standing, asked_to_stop


def ask_to_stop(
    session: Session, job: Job, asked: StopReason, *, actor: str, reason: str | None = None
) -> None:
    """Ask a locked job to stop. Asking again changes nothing. Raises Conflict where it cannot be.

    A job that runs leaves at its next step, with its checkpoint unless it is cancelled. `reason`: why, as its
    event tells it.
    """
    change = asked_to_stop(standing(job), asked)
    if change is None:
        return
    if job.state is JobState.STOPPING:
        _leave_for_another_reason(session, job, asked, actor)
        return
    if change.to is JobState.STOPPING:
        words = reason or f"{asked} asked for"
    else:
        job.wait_reason = None
        words = reason or f"{change.to} while it was {job.state}"
    move(session, job, change.to, actor=actor, reason=words, stop_reason=change.stop_reason)


def go_on(session: Session, job: Job, *, actor: str) -> None:
    """Let a locked, paused job go on: behind those that wait, or once the job that it starts from is done."""
    waits_for = _unfinished_base(session, job)
    if waits_for is None:
        move(session, job, JobState.QUEUED, actor=actor, reason="resumed, waits for slots")
        return
    job.wait_reason = f"waits for the model of job {waits_for}"
    reason = f"resumed, {job.wait_reason}"
    move(session, job, JobState.VALIDATING_FILES, actor=actor, reason=reason)


def change_job(session: Session, job: Job, changes: Sequence[SpecChange], *, actor: str) -> None:
    """Write down what a locked, paused job is to be from now on; what it was asked to be stays as it was."""
    fields = with_changes({**job.resolved, PRIORITY: job.priority}, changes)
    job.priority = fields.pop(PRIORITY)
    job.resolved = fields
    told = [change.model_dump(mode="json") for change in changes]
    job.changes = [*job.changes, *told]
    record(session, job, "change", in_words(changes), actor=actor, data={"changes": told})


def reached(session: Session, job: Job) -> Reached:
    """How far the job may be when it goes on: at the furthest of the checkpoints that it may go on from."""
    by_step = usable(job.id).order_by(None).order_by(Checkpoint.step.desc())
    furthest = session.scalars(by_step.limit(1)).one_or_none()
    if furthest is None:
        return Reached()
    told = (job.progress or {}).get("train")
    steps_per_epoch = told["total_steps"] // told["n_epochs"] if told else None
    return Reached(furthest.epoch, furthest.step, steps_per_epoch)


def spent_s(session: Session, job: Job) -> float:
    """For how long the trainers of its tries have run."""
    query = select(func.coalesce(func.sum(Attempt.ran_s), 0.0)).where(Attempt.job_id == job.id)
    return session.scalars(query).one()


def standing(job: Job) -> Standing:
    """The job as the rules see it."""
    return Standing(job.id, job.state, job.stop_reason)


def _leave_for_another_reason(session: Session, job: Job, asked: StopReason, actor: str) -> None:
    """It leaves already, and goes elsewhere then. Its workers hear of it with their next renewal."""
    data = {"stop_reason": asked, "instead_of": job.stop_reason}
    record(session, job, "note", f"{asked} asked for, in place of {job.stop_reason}", actor=actor, data=data)
    job.stop_reason = asked


def _unfinished_base(session: Session, job: Job) -> str | None:
    if job.base_job_id is None:
        return None
    state = session.scalars(select(Job.state).where(Job.id == job.base_job_id)).one()
    return None if state is JobState.SUCCEEDED else job.base_job_id
