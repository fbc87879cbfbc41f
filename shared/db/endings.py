"""How an attempt ends: its allocations one by one, then the attempt, then where its job goes next.

All of it happens under the job's lock; every function here wants the rows locked already.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.artifact_rows import StoredArtifact, store_artifacts
from shared.db.causes import cause_of, ends_the_others, node_of
from shared.db.checkpoints import leave_out_taken_up
from shared.db.fence import lock_attempt
from shared.db.history import move
from shared.db.models import Allocation, Attempt, Job, Slot
from shared.db.storable import storable
from shared.db.suspicion import suspect
from shared.domain.events import ErrorReport
from shared.domain.failures import INTERNAL, PEER_LOST, THE_NODES_OWN, WORKER_LOST, explained
from shared.domain.job import (
    AFTER_STOP,
    LIVE_ALLOCATION_STATES,
    AllocationState,
    AttemptState,
    JobState,
    Outcome,
    SlotState,
    StopReason,
    transition,
)


def finish(  # noqa: PLR0913 - each is one fact of what the node reports
    session: Session,
    *,
    token: UUID,
    allocation_id: str,
    outcome: Outcome,
    error: ErrorReport | None,
    result: dict[str, Any] | None,
    artifacts: Sequence[StoredArtifact],
    clean: bool,
    actor: str,
    suspect_s: float = 0.0,
) -> bool:
    """End an allocation as its node tells it. `clean`: no process of it is left, its slots are free at once.

    Only node rank 0 gives a result and artifacts. False: the lease was lost, nothing is written and the
    result must not be used; True also when an earlier try of this call was committed.

    A node whose own program failed, or whose disk is full, gets no offer for `suspect_s` seconds: else it
    would take one waiting job after another, each of which would lose a try.
    """
    found = lock_attempt(session, token)
    if found is None:
        return False
    job, attempt = found
    allocations = lock_allocations(session, attempt)
    mine = next((one for one in allocations if one.id == allocation_id), None)
    if mine is None or mine.state is not AllocationState.CLAIMED:
        return mine is not None and mine.state is AllocationState.ENDED and mine.outcome is outcome
    if suspect_s > 0 and error is not None and error.code in THE_NODES_OWN:
        # Before the slots: a node that registers locks in this order too.
        suspect(session, [mine.node_id], for_s=suspect_s)
    if mine.node_rank == 0:
        store_artifacts(session, attempt, artifacts)
        job.result = storable(result) if outcome is Outcome.SUCCEEDED else job.result
    end_allocation(session, mine, AllocationState.ENDED, outcome, error, clean=clean)
    settle(session, job, attempt, allocations, actor=actor)
    return True


def lock_allocations(session: Session, attempt: Attempt) -> list[Allocation]:
    """Every allocation of a locked attempt, locked, by node rank."""
    return list(
        session.scalars(
            select(Allocation)
            .where(Allocation.attempt_id == attempt.id)
            .order_by(Allocation.node_rank)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    )


def end_allocation(
    session: Session,
    allocation: Allocation,
    to: AllocationState,
    outcome: Outcome,
    error: ErrorReport | None,
    *,
    clean: bool,
) -> None:
    """End one allocation and let go of its slots: free when `clean`, else dirty until the node looks."""
    transition(allocation, to)
    allocation.outcome = outcome
    # That it was silent was seen before it came back to say that its gang is over.
    if allocation.error is None or (error is not None and error.code != PEER_LOST):
        allocation.error = storable(explained(error).model_dump(mode="json")) if error else None
    allocation.ended_at = func.clock_timestamp()
    allocation.lease_expires_at = None
    slots = session.scalars(
        select(Slot)
        .where(Slot.allocation_id == allocation.id)
        .order_by(Slot.node_id, Slot.index)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for slot in slots:
        transition(slot, SlotState.FREE if clean else SlotState.DIRTY)
        slot.allocation_id = None


def withdraw_offers(session: Session, allocations: Sequence[Allocation]) -> None:
    """Take back what no node has answered. Nothing ran there: the slots are free."""
    for allocation in allocations:
        if allocation.state is AllocationState.OFFERED:
            end_allocation(session, allocation, AllocationState.EXPIRED, Outcome.INCOMPLETE, None, clean=True)


def settle(
    session: Session, job: Job, attempt: Attempt, allocations: Sequence[Allocation], *, actor: str
) -> None:
    """An allocation has ended: end the attempt and move the job if it was the last, else tell the others."""
    session.flush()
    if any(one.state in LIVE_ALLOCATION_STATES for one in allocations):
        if attempt.state is not AttemptState.ENDING and ends_the_others(attempt, allocations):
            transition(attempt, AttemptState.ENDING)
            withdraw_offers(session, allocations)
            settle(session, job, attempt, allocations, actor=actor)
        return
    cause = cause_of(allocations)
    transition(attempt, AttemptState.ENDED)
    attempt.outcome = (cause.outcome if cause else None) or Outcome.SUCCEEDED
    where = {"attempt": attempt.number, "node": node_of(cause, allocations)} if cause else {}
    attempt.error = {**cause.error, **where} if cause and cause.error else None
    attempt.ended_at = func.clock_timestamp()
    if leave_out_taken_up(session, job, attempt, actor):
        to = AFTER_STOP[job.stop_reason] if job.stop_reason else JobState.QUEUED
        reason = "The checkpoint that the run went on from is left out."
        _go_to(session, job, attempt, to, actor=actor, reason=reason)
    else:
        _move_on(session, job, attempt, actor)


def _move_on(session: Session, job: Job, attempt: Attempt, actor: str) -> None:
    """Where the job goes from here: DESIGN's rules."""
    stop, outcome, error = job.stop_reason, attempt.outcome, attempt.error
    match outcome:
        case Outcome.SUCCEEDED:
            _go_to(session, job, attempt, JobState.SUCCEEDED, actor=actor, reason="The result is stored.")
        case Outcome.FAILED:
            _fail(
                session, job, attempt, error or _report(INTERNAL, "the run failed without saying why"), actor
            )
        case Outcome.LOST:
            job.attempts_used += 1
            _after_loss(session, job, attempt, actor)
        case Outcome.STOPPED | Outcome.INCOMPLETE:
            why = "The run has stopped" if outcome is Outcome.STOPPED else "The offer was withdrawn"
            to = AFTER_STOP[stop] if stop else JobState.QUEUED
            asked = f" as asked ({stop})" if stop else "; the job waits again"
            but = f"; {error['message']}" if error else ""
            _go_to(session, job, attempt, to, actor=actor, reason=f"{why}{asked}{but}.")


def _go_to(
    session: Session,
    job: Job,
    attempt: Attempt,
    to: JobState,
    *,
    actor: str,
    reason: str,
    data: dict[str, Any] | None = None,
) -> None:
    """Move the job, and tell which try has ended, and how."""
    told = {"attempt": attempt.number, "outcome": attempt.outcome, **(data or {})}
    move(session, job, to, actor=actor, reason=reason, data=told)


def _after_loss(session: Session, job: Job, attempt: Attempt, actor: str) -> None:
    error = attempt.error or _report(WORKER_LOST, "the worker is gone")
    lost = error["message"]
    if job.stop_reason is StopReason.CANCEL:
        _go_to(session, job, attempt, JobState.CANCELLED, actor=actor, reason=f"Cancelled; {lost}.")
    elif job.attempts_used >= job.max_attempts:
        tries = f"{job.attempts_used} of {job.max_attempts} tries were lost; the last: {lost}"
        _fail(session, job, attempt, {**error, "message": tries}, actor)
    else:
        to = AFTER_STOP[job.stop_reason] if job.stop_reason else JobState.QUEUED
        reason = f"Try {job.attempts_used} of {job.max_attempts} was lost: {lost}."
        told = {"code": error["code"], "error": error}
        _go_to(session, job, attempt, to, actor=actor, reason=reason, data=told)


def _fail(session: Session, job: Job, attempt: Attempt, error: dict[str, Any], actor: str) -> None:
    job.error = error
    _go_to(
        session,
        job,
        attempt,
        JobState.FAILED,
        actor=actor,
        reason=str(error["message"]),
        data={"code": error["code"], "error": error},
    )


def _report(code: str, message: str) -> dict[str, Any]:
    error = ErrorReport(code=code, message=message, time=time.time())
    return explained(error).model_dump(mode="json")
