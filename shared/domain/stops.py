"""What asking a job to stop, or to go on, means in the state that it is in: pure, and the whole of it."""

from __future__ import annotations

from dataclasses import dataclass

from shared.domain.errors import Conflict
from shared.domain.job import AFTER_STOP, FINAL_JOB_STATES, JobState, StopReason

_HOLDS_SLOTS = frozenset({JobState.DISPATCHED, JobState.RUNNING})
# Of two wishes for a job that is leaving, the higher one counts: what is cancelled never comes back, and what
# a person pauses does not come back by itself.
_RANK = {StopReason.PREEMPT: 0, StopReason.DRAIN: 0, StopReason.PAUSE: 1, StopReason.CANCEL: 2}


@dataclass(frozen=True)
class Standing:
    """A job as far as stopping goes. `leaving`: why it is `stopping`, None in every other state."""

    job_id: str
    state: JobState
    leaving: StopReason | None = None


@dataclass(frozen=True)
class Change:
    """Where a job goes now. `to` is `stopping` with its reason where it must first leave its slots."""

    to: JobState
    stop_reason: StopReason | None = None


def asked_to_stop(job: Standing, asked: StopReason) -> Change | None:
    """What comes of asking; None where it is so already. Raises Conflict where it cannot be.

    A job without slots goes where the stop leads at once; one with slots leaves them first.
    """
    _refuse_if_over(job)
    if job.state is JobState.STOPPING:
        return _while_it_leaves(job, asked)
    if job.state in _HOLDS_SLOTS:
        return Change(JobState.STOPPING, asked)
    to = AFTER_STOP[asked]
    if to is JobState.QUEUED:
        raise Conflict(
            f"job {job.job_id} is {job.state}: it holds no slots that it could hand back",
            code="job_holds_no_slots",
        )
    return None if to is job.state else Change(to)


def may_go_on(job: Standing, *, is_changed: bool) -> bool:
    """Whether a job that is asked to go on is paused and so can; False: it does already. Raises Conflict.

    `is_changed`: it is to go on otherwise than it was. Only a paused job can be.
    """
    _refuse_if_over(job)
    if job.state is JobState.PAUSED:
        return True
    if job.leaving is StopReason.CANCEL:
        raise Conflict(f"job {job.job_id} is being cancelled and cannot go on", code="job_is_cancelled")
    if job.leaving is StopReason.PAUSE:
        raise Conflict(
            f"job {job.job_id} is writing its checkpoint and leaving its slots; resume it once it is paused",
            code="job_is_stopping",
        )
    if is_changed:
        raise Conflict(
            f"job {job.job_id} is {job.state}, and only a paused job can be changed: pause it first",
            code="job_is_not_paused",
        )
    return False


def _while_it_leaves(job: Standing, asked: StopReason) -> Change | None:
    assert job.leaving is not None, "whatever is stopping has a reason"
    if asked is StopReason.PAUSE and job.leaving is StopReason.CANCEL:
        raise Conflict(f"job {job.job_id} is being cancelled and cannot be paused", code="job_is_cancelled")
    return Change(JobState.STOPPING, asked) if _RANK[asked] > _RANK[job.leaving] else None


def _refuse_if_over(job: Standing) -> None:
    if job.state in FINAL_JOB_STATES:
        raise Conflict(f"job {job.job_id} is over already: {job.state}", code="job_is_final")
