"""A job's history: every change of state is an event, written in the transaction that makes the change."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from shared.db.models import Event, Job
from shared.domain.job import FINAL_JOB_STATES, JobState, StopReason, transition

_LARGE = (Job.spec, Job.resolved, Job.freeze_plan, Job.changes, Job.progress, Job.result, Job.error)


def lock_job(session: Session, job_id: str) -> Job:
    """The job's row, locked until the transaction ends. Raises NoResultFound on an unknown id."""
    return session.scalars(
        select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    ).one()


def lock_jobs(session: Session, job_ids: Collection[str], states: Collection[JobState]) -> dict[str, Job]:
    """Those of the jobs that are in one of the states, by id; one that somebody else holds is left out.

    Locked in the order of their ids. What a job is, which may be large, is not read.
    """
    jobs = session.scalars(
        select(Job)
        .where(Job.id.in_(job_ids), Job.state.in_(states))
        .order_by(Job.id)
        .options(*map(defer, _LARGE))
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return {job.id: job for job in jobs}


def record(
    session: Session,
    job: Job,
    type: str,
    message: str,
    *,
    actor: str,
    level: str = "info",
    data: dict[str, Any] | None = None,
) -> None:
    """Append an event. `job` must be locked by this transaction: that is what keeps `seq` free of gaps."""
    job.n_events += 1
    session.add(
        Event(
            job_id=job.id,
            seq=job.n_events,
            type=type,
            level=level,
            message=message,
            actor=actor,
            data=data or {},
        )
    )


def record_created(session: Session, job: Job, *, actor: str) -> None:
    """The first event of a new job, which comes from no other state."""
    data = {"old": None, "new": job.state, "reason": "created"}
    record(session, job, "state", "created", actor=actor, data=data)


def move(
    session: Session,
    job: Job,
    to: JobState,
    *,
    actor: str,
    reason: str,
    stop_reason: StopReason | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Move a locked job to another state, set the times that go with it, and record the event."""
    old = transition(job, to)
    left_for, job.stop_reason = job.stop_reason, stop_reason
    now = func.clock_timestamp()
    if to is JobState.QUEUED:
        _queue(job, old, left_for)
    if to is JobState.DISPATCHED and job.dispatched_at is None:
        job.dispatched_at = now
    if to is JobState.RUNNING and job.started_at is None:
        job.started_at = now
    if to in FINAL_JOB_STATES:
        job.finished_at = now
    level = "error" if to is JobState.FAILED else "info"
    record(
        session,
        job,
        "state",
        reason,
        actor=actor,
        level=level,
        data={
            "old": old,
            "new": to,
            "reason": reason,
            **({"stop_reason": stop_reason} if stop_reason else {}),
            **(data or {}),
        },
    )


def _queue(job: Job, old: JobState, left_for: StopReason | None) -> None:
    """Its place in the queue: kept through losses and drains, the last one after a pause or a preemption.

    Whoever pauses lets the others go first, and slots that were handed back must not come back at once.
    """
    now = func.clock_timestamp()
    was_preempted = left_for is StopReason.PREEMPT
    if was_preempted:
        job.preempted_at = now
        job.wait_reason = "has handed its slots to others, and waits a moment for them to be taken"
    if job.queued_at is None or old is JobState.PAUSED or was_preempted:
        job.queued_at = now
