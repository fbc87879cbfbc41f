"""A job goes: at once for its team, its files with a later sweep; its row stays for what refers to it."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.clock import now
from shared.db.history import record
from shared.db.models import Job
from shared.db.scope import Scope
from shared.domain.errors import Conflict, Invalid
from shared.domain.job import FINAL_JOB_STATES


def delete_job(scope: Scope, job_id: str, *, actor: str) -> Job:
    """Mark the job as deleted: its team sees it no more, and the sweep may remove its files.

    Raises Conflict while it is not over, or while an unfinished job goes on from its result.
    """
    job = scope.get(Job, job_id, lock=True)
    if job.state not in FINAL_JOB_STATES:
        raise Conflict(
            f"job {job.id} is {job.state}; only a job that is over can be deleted, so cancel it first",
            code="job_not_final",
        )
    user = scope.session.scalar(
        select(Job.id).where(Job.base_job_id == job.id, Job.state.not_in(FINAL_JOB_STATES)).limit(1)
    )
    if user is not None:
        raise Conflict(
            f"job {user}, which has not finished, goes on from the result of job {job.id}; "
            "cancel that job or wait for it",
            code="job_in_use",
        )
    mark_deleted(scope.session, job, actor=actor, reason="deleted")
    return job


def mark_deleted(session: Session, job: Job, *, actor: str, reason: str) -> None:
    """Mark a locked job that is over and that nobody needs."""
    record(session, job, "note", reason, actor=actor, data={"code": "deleted"})
    job.deleted_at = now(session)


def check_base_stays(scope: Scope, job: Job) -> None:
    """Raises Invalid where the base of a job, stored just now, was deleted while the job was being planned.

    The new row's reference holds the base's row until the commit, so that it cannot be deleted after this.
    """
    if job.base_job_id is None:
        return
    deleted_at = scope.session.scalar(
        select(Job.deleted_at).where(Job.id == job.base_job_id).execution_options(populate_existing=True)
    )
    if deleted_at is not None:
        raise Invalid(
            f"no job {job.base_job_id}: it has just been deleted", param="model", code="unknown_model"
        )
