"""What the scheduler reads and writes: nodes with room, the queue in order, offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from shared.db.checkpoints import newest_checkpoint
from shared.db.clock import seconds_ago
from shared.db.history import move
from shared.db.models import Allocation, Attempt, Job, NodeRow, Slot
from shared.domain.cluster import Node, Placement, Waiting
from shared.domain.job import (
    AllocationState,
    AttemptState,
    JobState,
    NodeState,
    SlotState,
    transition,
)
from shared.ids import new_id

ACTOR = "scheduler"
_PASS_LOCK = 7241002


@dataclass(frozen=True)
class Offer:
    """What is published to a node after the commit."""

    allocation_id: str
    dispatch_seq: int
    node_id: str


def lock_pass(session: Session) -> bool:
    """Whether this transaction is the one that may place now; copies of the scheduler take turns."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_PASS_LOCK))))


def load_nodes(session: Session, *, heard_within_s: float) -> list[Node]:
    """Every node that is not lost. One that is leaving, suspect or silent shows no free slots."""
    fit = and_(NodeRow.state == NodeState.READY, NodeRow.last_seen_at > seconds_ago(heard_within_s))
    free = func.array_agg(Slot.index).filter(and_(Slot.state == SlotState.FREE, fit))
    rows = session.execute(
        select(NodeRow.id, NodeRow.accelerator, NodeRow.models, func.count(), free, func.bool_or(fit))
        .join(Slot, Slot.node_id == NodeRow.id)
        .where(NodeRow.state != NodeState.LOST)
        .group_by(NodeRow.id)
    )
    return [
        Node(
            id=node_id,
            accelerator=accelerator,
            n_slots=n_slots,
            free_slots=tuple(sorted(free_slots or ())),
            models=frozenset((name, hash) for name, hash in models),
            takes_work=takes_work,
        )
        for node_id, accelerator, models, n_slots, free_slots, takes_work in rows
    ]


@dataclass(frozen=True)
class Queue:
    """The queued jobs, and the reason to wait that stands at each of them."""

    waiting: list[Waiting]
    reasons: dict[str, str | None]


def load_queue(session: Session, *, yield_s: float = 0.0) -> Queue:
    """All queued jobs but those that handed their slots to others less than `yield_s` seconds ago.

    Of `resolved`, which may be large, only the network that is trained.
    """
    rows = session.execute(
        select(
            Job.id,
            Job.team_id,
            Job.priority,
            func.extract("epoch", Job.queued_at).label("queued_at"),
            Job.nodes,
            Job.devices_per_node,
            Job.accelerator,
            Job.wait_reason,
            Job.resolved["target"].label("target"),
        ).where(
            Job.state == JobState.QUEUED,
            or_(Job.preempted_at.is_(None), Job.preempted_at <= seconds_ago(yield_s)),
        )
    ).all()
    waiting = [
        Waiting(
            id=row.id,
            order=(-row.priority, float(row.queued_at), row.id),
            devices_per_node=row.devices_per_node,
            accelerator=row.accelerator,
            nodes=row.nodes,
            registered_model=_registered(row.target),
            team=row.team_id,
        )
        for row in rows
    ]
    return Queue(waiting, {row.id: row.wait_reason for row in rows})


def _registered(target: dict[str, Any]) -> tuple[str, str] | None:
    return (target["name"], target.get("hash", "")) if target["source"] == "registered" else None


def place(session: Session, placement: Placement) -> Offer | None:
    """Hold the slots, write the attempt and its offer. None when the job, the node or a slot is busy now."""
    job = session.scalars(
        select(Job)
        .where(Job.id == placement.job_id, Job.state == JobState.QUEUED)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    node = _lock_ready_node(session, placement.node_id)
    if job is None or node is None:
        return None
    slots = session.scalars(
        select(Slot)
        .where(
            Slot.node_id == placement.node_id,
            Slot.index.in_(placement.slots),
            Slot.state == SlotState.FREE,
        )
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    if len(slots) < len(placement.slots):
        return None
    attempt = _new_attempt(session, job, node, placement)
    allocation = Allocation(
        id=new_id("alloc"),
        attempt_id=attempt.id,
        node_id=placement.node_id,
        node_rank=0,
        slots=sorted(placement.slots),
        accelerator=node.accelerator,
        state=AllocationState.OFFERED,
        dispatch_seq=1,
    )
    session.add(allocation)
    session.flush()
    for slot in slots:
        transition(slot, SlotState.HELD)
        slot.allocation_id = allocation.id
    job.wait_reason = None
    where = f"slots {', '.join(map(str, allocation.slots))} of {placement.node_id}"
    reason = f"Offered {where}, try {attempt.number}."
    told = {"attempt": attempt.number, "node": placement.node_id, "slots": list(allocation.slots)}
    move(session, job, JobState.DISPATCHED, actor=ACTOR, reason=reason, data=told)
    session.flush()
    return Offer(allocation.id, allocation.dispatch_seq, allocation.node_id)


def store_reasons(session: Session, reasons: Mapping[str, str]) -> None:
    """Write why jobs wait, where it has changed; a job that somebody holds is left to the next pass."""
    if not reasons:
        return
    free = session.scalars(
        select(Job.id)
        .where(Job.id.in_(reasons), Job.state == JobState.QUEUED)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    ).all()
    if free:
        session.execute(update(Job), [{"id": job_id, "wait_reason": reasons[job_id]} for job_id in free])


def _lock_ready_node(session: Session, node_id: str) -> NodeRow | None:
    """Kept ready until the commit, so that a node which starts to leave sees every offer made to it."""
    return session.scalars(
        select(NodeRow)
        .where(NodeRow.id == node_id, NodeRow.state == NodeState.READY)
        .with_for_update(read=True, skip_locked=True)
        .execution_options(populate_existing=True)
    ).one_or_none()


def _new_attempt(session: Session, job: Job, node: NodeRow, placement: Placement) -> Attempt:
    last = session.scalar(select(func.max(Attempt.number)).where(Attempt.job_id == job.id))
    attempt = Attempt(
        id=new_id("attempt"),
        job_id=job.id,
        number=(last or 0) + 1,
        state=AttemptState.OFFERED,
        nodes=job.nodes,
        claimed=0,
        lease_token=uuid4(),
        master_addr=node.advertise_host,
        master_port=node.port_base + min(placement.slots),
        resume_from=newest_checkpoint(session, job.id),
    )
    session.add(attempt)
    session.flush()
    return attempt
