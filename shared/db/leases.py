"""What the holder of a lease may do: claim, renew, report, finish. Each call is one short transaction's work.

The caller commits. A call that was cut off by a lost connection is made again as it was: it finds what its
first try did and answers the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import CTE, case, func, literal, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from shared.db.artifact_rows import StoredArtifact, add_artifact
from shared.db.checkpoints import add_checkpoint
from shared.db.clock import seconds_from_now
from shared.db.endings import finish
from shared.db.history import lock_job, move
from shared.db.models import Allocation, Attempt, Job, NodeRow
from shared.db.reports import write_progress
from shared.domain.job import (
    LIVE_ATTEMPT_STATES,
    AllocationState,
    AttemptState,
    JobState,
    NodeState,
    StopReason,
)

__all__ = [
    "Claim",
    "Renewal",
    "StoredArtifact",
    "add_artifact",
    "add_checkpoint",
    "attempt_is_running",
    "claim",
    "finish",
    "renew",
    "write_progress",
]


@dataclass(frozen=True)
class Claim:
    """A node's share of an attempt, with the lease on it. `attempt_number` is 1 for the first try.

    `attempt_running` is False while other nodes of the attempt have not claimed yet: launch nothing then.
    """

    allocation_id: str
    attempt_id: str
    job_id: str
    team_id: str
    token: UUID
    node_rank: int
    slots: list[int]
    attempt_number: int
    nodes: int
    master_addr: str
    master_port: int
    attempt_running: bool


@dataclass(frozen=True)
class Renewal:
    """A confirmed lease.

    `stop_reason`: the job was asked to stop. `ending`: another node of the attempt failed, so kill the ranks.
    `node_leaves`: the node is drained, or its worker leaves by itself.
    """

    stop_reason: StopReason | None
    ending: bool
    node_leaves: bool = False


def claim(
    session: Session,
    *,
    allocation_id: str,
    dispatch_seq: int,
    node_id: str,
    incarnation: UUID,
    lease_s: float,
    claim_id: UUID | None = None,
) -> Claim | None:
    """Take the lease that a message offers; None when there is nothing to take: drop the message.

    `claim_id` names one handling of one message: the same id again finds its own success, another finds the
    lease taken. A job that was asked to stop meanwhile is not taken: the scheduler withdraws its offer.
    """
    job_id = session.scalar(select(Attempt.job_id).join(Allocation).where(Allocation.id == allocation_id))
    if job_id is None:
        return None
    job = lock_job(session, job_id)
    if job.state is JobState.DISPATCHED:
        taken = _take(allocation_id, dispatch_seq, node_id, incarnation, claim_id or uuid4(), lease_s)
        state = session.scalar(_count(taken))
        if state is not None:
            claimed = _claimed(session, job, allocation_id)
            if state is AttemptState.RUNNING:
                _tell_running(session, job, claimed, node_id)
            return claimed
    if claim_id is not None and _is_held_by(session, allocation_id, claim_id):
        return _claimed(session, job, allocation_id)
    return None


def _tell_running(session: Session, job: Job, claimed: Claim, node_id: str) -> None:
    told = {"attempt": claimed.attempt_number, "node": node_id}
    reason = "Every node has taken its share."
    move(session, job, JobState.RUNNING, actor=node_id, reason=reason, data=told)


def attempt_is_running(session: Session, token: UUID) -> bool | None:
    """Whether every node has claimed; None when the attempt is over or never was: the token is lost."""
    state = session.scalar(select(Attempt.state).where(Attempt.lease_token == token))
    if state is None or state not in LIVE_ATTEMPT_STATES:
        return None
    return state is AttemptState.RUNNING


def renew(session: Session, *, token: UUID, allocation_id: str, lease_s: float) -> Renewal | None:
    """Hold the lease for `lease_s` seconds from now, and learn what is asked; None: the lease is lost.

    One statement that locks one row. A lease whose time ran out but which nobody has expired yet still holds.
    """
    row = session.execute(
        update(Allocation)
        .where(
            Allocation.id == allocation_id,
            Allocation.state == AllocationState.CLAIMED,
            Allocation.attempt_id == Attempt.id,
            Attempt.lease_token == token,
            Attempt.state.in_(LIVE_ATTEMPT_STATES),
            Job.id == Attempt.job_id,
            NodeRow.id == Allocation.node_id,
        )
        .values(lease_expires_at=seconds_from_now(lease_s))
        .returning(Job.stop_reason, Attempt.state, NodeRow.state.label("of_node"))
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    return Renewal(
        stop_reason=row.stop_reason,
        ending=row.state is AttemptState.ENDING,
        node_leaves=row.of_node is NodeState.DRAINING,
    )


def _take(
    allocation_id: str, seq: int, node_id: str, incarnation: UUID, claim_id: UUID, lease_s: float
) -> CTE:
    """The allocation: offered -> claimed, if this is its newest offer and the node's newest worker asks."""
    return (
        update(Allocation)
        .where(
            Allocation.id == allocation_id,
            Allocation.dispatch_seq == seq,
            Allocation.state == AllocationState.OFFERED,
            Allocation.node_id == node_id,
            NodeRow.id == Allocation.node_id,
            NodeRow.incarnation == incarnation,
        )
        .values(
            state=AllocationState.CLAIMED,
            incarnation=incarnation,
            claim_id=claim_id,
            claimed_at=func.clock_timestamp(),
            lease_expires_at=seconds_from_now(lease_s),
        )
        .returning(Allocation.attempt_id)
        .cte("taken")
    )


def _count(taken: CTE) -> ReturningUpdate[AttemptState]:
    """In the same statement: one more node has claimed, and the last of them makes the attempt run."""
    complete = Attempt.claimed + 1 == Attempt.nodes
    return (
        update(Attempt)
        .where(Attempt.id == taken.c.attempt_id, Attempt.state == AttemptState.OFFERED)
        .values(
            claimed=Attempt.claimed + 1,
            state=case((complete, literal(AttemptState.RUNNING, Attempt.state.type)), else_=Attempt.state),
            running_at=case((complete, func.clock_timestamp()), else_=None),
        )
        .returning(Attempt.state)
        .execution_options(synchronize_session=False)
    )


def _is_held_by(session: Session, allocation_id: str, claim_id: UUID) -> bool:
    found = session.scalar(
        select(Allocation.id).where(
            Allocation.id == allocation_id,
            Allocation.claim_id == claim_id,
            Allocation.state == AllocationState.CLAIMED,
        )
    )
    return found is not None


def _claimed(session: Session, job: Job, allocation_id: str) -> Claim:
    allocation, attempt = session.execute(
        select(Allocation, Attempt)
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .where(Allocation.id == allocation_id)
        .execution_options(populate_existing=True)
    ).one()
    return Claim(
        allocation_id=allocation.id,
        attempt_id=attempt.id,
        job_id=job.id,
        team_id=job.team_id,
        token=attempt.lease_token,
        node_rank=allocation.node_rank,
        slots=list(allocation.slots),
        attempt_number=attempt.number,
        nodes=attempt.nodes,
        master_addr=attempt.master_addr,
        master_port=attempt.master_port,
        attempt_running=attempt.state is AttemptState.RUNNING,
    )
