"""Putting right what nobody will report: leases that ran out, offers without an answer, nodes gone silent.

Each list is bounded and taken without locks; each entry is then looked at again under its job's lock, in a
transaction of its own, so copies of the reconciler and late reports cannot both act on it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session, aliased

from shared.db.clock import now, seconds_ago, seconds_from_now
from shared.db.endings import end_allocation, lock_allocations, settle, withdraw_offers
from shared.db.fence import lock_attempt
from shared.db.history import lock_job, move
from shared.db.models import Allocation, Attempt, Job, NodeRow
from shared.db.placement import Offer
from shared.db.suspicion import suspect
from shared.domain.events import ErrorReport
from shared.domain.failures import WORKER_LOST, explained
from shared.domain.job import (
    FINAL_JOB_STATES,
    AllocationState,
    AttemptState,
    JobState,
    NodeState,
    Outcome,
    transition,
)

ACTOR = "reconciler"
BATCH = 100


def expired_leases(session: Session) -> Sequence[UUID]:
    """Tokens of attempts that have an allocation whose lease ran out."""
    return session.scalars(
        select(Attempt.lease_token)
        .join(Allocation)
        .where(
            Allocation.state == AllocationState.CLAIMED,
            Allocation.lease_expires_at < func.clock_timestamp(),
        )
        .distinct()
        .limit(BATCH)
    ).all()


def expire(session: Session, token: UUID) -> bool:
    """Expire what has run out in one attempt; its slots stay dirty until their node has looked."""
    found = lock_attempt(session, token)
    if found is None:
        return False
    job, attempt = found
    allocations = lock_allocations(session, attempt)
    moment = now(session)
    over = [one for one in allocations if one.lease_expires_at and one.lease_expires_at < moment]
    for allocation in over:
        message = f"the node {allocation.node_id} did not renew its lease in time"
        error = ErrorReport(code=WORKER_LOST, message=message, time=time.time())
        end_allocation(session, allocation, AllocationState.EXPIRED, Outcome.LOST, error, clean=False)
    if over:
        settle(session, job, attempt, allocations, actor=ACTOR)
    return bool(over)


def held_gangs(session: Session, *, unrenewed_s: float, lease_s: float) -> Sequence[UUID]:
    """Tokens of running attempts with several nodes, one of which has renewed nothing for `unrenewed_s`."""
    return session.scalars(
        select(Attempt.lease_token)
        .join(Allocation)
        .where(
            Attempt.nodes > 1,
            Attempt.state == AttemptState.RUNNING,
            Allocation.state == AllocationState.CLAIMED,
            Allocation.lease_expires_at < _renewed_before(unrenewed_s, lease_s),
        )
        .distinct()
        .limit(BATCH)
    ).all()


def end_held_gang(session: Session, token: UUID, *, unrenewed_s: float, lease_s: float) -> bool:
    """Tell the other nodes of a gang to leave, as one has renewed nothing for `unrenewed_s`.

    Its own launcher holds its ranks by then, or is gone with them, and the others wait for them. What is
    claimed there still ends by its lease alone: only then is it sure that nothing runs.
    """
    found = lock_attempt(session, token)
    if found is None or found[1].state is not AttemptState.RUNNING:
        return False
    attempt = found[1]
    before = session.scalars(select(_renewed_before(unrenewed_s, lease_s))).one()
    silent = [
        one
        for one in lock_allocations(session, attempt)
        if one.lease_expires_at is not None and one.lease_expires_at < before
    ]
    if attempt.nodes == 1 or not silent:
        return False
    for allocation in silent:
        allocation.error = _silence(f"has not renewed its lease for {unrenewed_s:g} s", allocation.node_id)
    transition(attempt, AttemptState.ENDING)
    return True


def unanswered_offers(session: Session, *, offer_s: float) -> Sequence[UUID]:
    """Tokens of attempts that have an offer older than `offer_s`."""
    return session.scalars(
        select(Attempt.lease_token)
        .join(Allocation)
        .where(
            Allocation.state == AllocationState.OFFERED,
            Allocation.offered_at < seconds_ago(offer_s),
        )
        .distinct()
        .limit(BATCH)
    ).all()


def offer_again(session: Session, token: UUID, *, offer_s: float, gang_s: float) -> list[Offer]:
    """Make an attempt's unanswered offers anew; when it is older than `gang_s`, take them back instead.

    Then the job is queued again with nothing used up, and the silent nodes are suspect for `gang_s` at least.
    """
    found = lock_attempt(session, token)
    if found is None:
        return []
    job, attempt = found
    allocations = lock_allocations(session, attempt)
    moment = now(session)
    silent = [
        one
        for one in allocations
        if one.state is AllocationState.OFFERED and (moment - one.offered_at).total_seconds() > offer_s
    ]
    if silent and (moment - attempt.created_at).total_seconds() > gang_s:
        suspect(session, [one.node_id for one in silent], for_s=gang_s)
        withdraw_offers(session, allocations)
        settle(session, job, attempt, allocations, actor=ACTOR)
        return []
    for allocation in silent:
        allocation.dispatch_seq += 1
        allocation.offered_at = moment
    session.flush()
    return [Offer(one.id, one.dispatch_seq, one.node_id) for one in silent]


def stopped_offers(session: Session) -> Sequence[UUID]:
    """Tokens of attempts whose job was asked to stop before every node had claimed."""
    return session.scalars(
        select(Attempt.lease_token)
        .join(Job, Job.id == Attempt.job_id)
        .where(Attempt.state == AttemptState.OFFERED, Job.state == JobState.STOPPING)
        .limit(BATCH)
    ).all()


def withdraw(session: Session, token: UUID) -> bool:
    """Take back the open offers of an attempt whose job was asked to stop, and so let the job go."""
    found = lock_attempt(session, token)
    if found is None:
        return False
    job, attempt = found
    if attempt.state is not AttemptState.OFFERED or job.state is not JobState.STOPPING:
        return False
    allocations = lock_allocations(session, attempt)
    withdraw_offers(session, allocations)
    settle(session, job, attempt, allocations, actor=ACTOR)
    return True


def lose_silent_nodes(session: Session, *, lease_s: float) -> Sequence[str]:
    """Mark nodes not heard of for a lease; what they hold expires by its own lease. Returns their names."""
    return session.scalars(
        update(NodeRow)
        .where(NodeRow.state != NodeState.LOST, NodeRow.last_seen_at < seconds_ago(lease_s))
        .values(state=NodeState.LOST)
        .returning(NodeRow.id)
    ).all()


def waiting_for_base(session: Session) -> Sequence[str]:
    """Jobs that wait for another job which is over."""
    base = aliased(Job)
    return session.scalars(
        select(Job.id)
        .join(base, base.id == Job.base_job_id)
        .where(Job.state == JobState.VALIDATING_FILES, base.state.in_(FINAL_JOB_STATES))
        .order_by(Job.created_at)
        .limit(BATCH)
    ).all()


def admit(session: Session, job_id: str) -> None:
    """Queue a job whose base has succeeded; fail it when the base will never have a result."""
    job = lock_job(session, job_id)
    if job.state is not JobState.VALIDATING_FILES or job.base_job_id is None:
        return
    base_state = session.scalars(select(Job.state).where(Job.id == job.base_job_id)).one()
    job.wait_reason = None
    if base_state is JobState.SUCCEEDED:
        move(session, job, JobState.QUEUED, actor=ACTOR, reason=f"{job.base_job_id} has its result")
        return
    message = f"the job {job.base_job_id} that this one goes on from has {base_state}, without a result"
    error = explained(ErrorReport(code="base_job_failed", message=message, time=time.time()))
    job.error = error.model_dump(mode="json")
    data = {"code": error.code, "error": job.error}
    move(session, job, JobState.FAILED, actor=ACTOR, reason=message, data=data)


def _renewed_before(unrenewed_s: float, lease_s: float) -> ColumnElement[datetime]:
    """When a lease ends that was last renewed `unrenewed_s` ago."""
    return seconds_from_now(lease_s - unrenewed_s)


def _silence(what: str, node_id: str) -> dict[str, Any]:
    error = ErrorReport(code=WORKER_LOST, message=f"the node {node_id} {what}", time=time.time())
    return explained(error).model_dump(mode="json")
