"""The fence: whoever writes for a job shows the attempt's token, and its lease must still stand."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.history import lock_job
from shared.db.models import Allocation, Attempt, Job
from shared.domain.job import AllocationState


def lock_attempt(session: Session, token: UUID) -> tuple[Job, Attempt] | None:
    """The job and the attempt of `token`, both locked, whatever their states; None for an unknown token.

    The job is locked first, here as everywhere: all that changes an attempt, an allocation or a held slot
    does, so two of them never wait for one another in a circle.
    """
    job_id = session.scalar(select(Attempt.job_id).where(Attempt.lease_token == token))
    if job_id is None:
        return None
    job = lock_job(session, job_id)
    attempt = session.scalars(
        select(Attempt)
        .where(Attempt.lease_token == token)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    return job, attempt


def lock_writer(session: Session, token: UUID) -> tuple[Job, Attempt] | None:
    """The same, if node rank 0, which alone writes, still holds its lease; else None: discard and end."""
    found = lock_attempt(session, token)
    if found is None:
        return None
    state = session.scalar(
        select(Allocation.state).where(Allocation.attempt_id == found[1].id, Allocation.node_rank == 0)
    )
    return found if state is AllocationState.CLAIMED else None
