"""Submissions that were named: each name of a team stands for one job, whoever comes first."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from shared.db.batches import remove_some
from shared.db.clock import seconds_ago
from shared.db.models import IdempotencyKey, Job
from shared.db.scope import Scope
from shared.domain.errors import Conflict, Unavailable
from shared.domain.idempotency import HEADER, Submission

_LOCK_NOT_AVAILABLE = "55P03"
_BATCH = 1000


def take_key(scope: Scope, submission: Submission, job_id: str) -> Job | None:
    """Take the key for the job that is about to be made; or return the job that it stands for already.

    Of several at once one goes on, and the others wait here until it has committed, or is refused: then the
    next of them goes on, so that a refused request uses no key up. Raises Conflict where the key stands for
    another request, and Unavailable where the first takes long.
    """
    taken = (
        insert(IdempotencyKey)
        .values(team_id=scope.team_id, key=submission.key, request_sha256=submission.sha256, job_id=job_id)
        .on_conflict_do_nothing(index_elements=["team_id", "key"])
        .returning(IdempotencyKey.job_id)
    )
    try:
        is_new = scope.session.scalar(taken) is not None
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise _in_use("came with another request, which is not answered yet") from error
    return None if is_new else _job_of(scope, submission)


def _job_of(scope: Scope, submission: Submission) -> Job:
    """The job that the key stands for, if it is for this very request and still there."""
    row = scope.session.execute(
        select(Job, IdempotencyKey.request_sha256)
        .join(IdempotencyKey, IdempotencyKey.job_id == Job.id)
        .where(IdempotencyKey.team_id == scope.team_id, IdempotencyKey.key == submission.key)
    ).one_or_none()
    if row is None:
        raise _in_use("was forgotten just now")
    job, sha256 = row
    if job.deleted_at is not None:
        raise _reused("was used for a job that has been deleted")
    if sha256 != submission.sha256:
        raise _reused(f"belongs to job {job.id}, which was asked for with another body")
    found: Job = job
    return found


def _in_use(how: str) -> Unavailable:
    return Unavailable(
        f"this {HEADER} {how}; send the request again in a few seconds",
        param=HEADER,
        code="idempotency_key_in_use",
    )


def _reused(how: str) -> Conflict:
    return Conflict(
        f"this {HEADER} {how}; send a new key for a new job", param=HEADER, code="idempotency_key_reused"
    )


def forget_keys(session: Session, *, older_than_s: float) -> int:
    """Forget some of the keys that are older; how many."""
    made = IdempotencyKey.created_at
    return remove_some(session, IdempotencyKey, made < seconds_ago(older_than_s), order_by=made, limit=_BATCH)
