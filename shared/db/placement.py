"""What the scheduler reads and writes: nodes with room, the queue in order, offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import and_, func, or_, select, tuple_, update
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
        select(
            NodeRow.id,
            NodeRow.accelerator,
            NodeRow.memory_bytes,
            NodeRow.models,
            func.count(),
            free,
            func.bool_or(fit),
        )
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
            memory_bytes=memory_bytes,
        )
        for node_id, accelerator, memory_bytes, models, n_slots, free_slots, takes_work in rows
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
            Job.memory_bytes,
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
            memory_bytes=row.memory_bytes,
        )
        for row in rows
    ]
    return Queue(waiting, {row.id: row.wait_reason for row in rows})


def _registered(target: dict[str, Any]) -> tuple[str, str] | None:
    return (target["name"], target.get("hash", "")) if target["source"] == "registered" else None


def place(session: Session, placement: Placement) -> list[Offer]:
    """Hold the slots, write the attempt and an offer to each of its nodes, by node rank.

    All or none: empty when the job, one of the nodes or one of the slots is busy now.
    """
    job = session.scalars(
        select(Job)
        .where(Job.id == placement.job_id, Job.state == JobState.QUEUED)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    nodes = _lock_ready_nodes(session, [part.node_id for part in placement.parts])
    if job is None or len(nodes) < len(placement.parts):
        return []
    slots = _lock_free_slots(session, placement)
    if len(slots) < placement.n_slots:
        return []
    attempt = _new_attempt(session, job, nodes[placement.parts[0].node_id], placement)
    allocations = _new_allocations(session, attempt, nodes, placement)
    for slot in slots:
        transition(slot, SlotState.HELD)
        slot.allocation_id = allocations[slot.node_id].id
    job.wait_reason = None
    _tell_offered(session, job, attempt, placement)
    session.flush()
    return [Offer(one.id, one.dispatch_seq, one.node_id) for one in allocations.values()]


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


def _lock_ready_nodes(session: Session, node_ids: Sequence[str]) -> dict[str, NodeRow]:
    """Those that are ready, and stay so until the commit: one that starts to leave sees every offer to it.

    Here and for slots: always in the order of their ids, whatever the ranks are, and nobody is waited for.
    """
    nodes = session.scalars(
        select(NodeRow)
        .where(NodeRow.id.in_(node_ids), NodeRow.state == NodeState.READY)
        .order_by(NodeRow.id)
        .with_for_update(read=True, skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return {node.id: node for node in nodes}


def _lock_free_slots(session: Session, placement: Placement) -> Sequence[Slot]:
    wanted = [(part.node_id, index) for part in placement.parts for index in part.slots]
    return session.scalars(
        select(Slot)
        .where(tuple_(Slot.node_id, Slot.index).in_(wanted), Slot.state == SlotState.FREE)
        .order_by(Slot.node_id, Slot.index)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()


def _new_attempt(session: Session, job: Job, first: NodeRow, placement: Placement) -> Attempt:
    """`first`: the node of rank 0, where the ranks of all nodes meet."""
    last = session.scalar(select(func.max(Attempt.number)).where(Attempt.job_id == job.id))
    attempt = Attempt(
        id=new_id("attempt"),
        job_id=job.id,
        number=(last or 0) + 1,
        state=AttemptState.OFFERED,
        nodes=job.nodes,
        claimed=0,
        lease_token=uuid4(),
        master_addr=first.advertise_host,
        master_port=first.port_base + min(placement.parts[0].slots),
        resume_from=newest_checkpoint(session, job.id),
    )
    session.add(attempt)
    session.flush()
    return attempt


def _new_allocations(
    session: Session, attempt: Attempt, nodes: Mapping[str, NodeRow], placement: Placement
) -> dict[str, Allocation]:
    """By node, in the order of their ranks."""
    allocations = {
        part.node_id: Allocation(
            id=new_id("alloc"),
            attempt_id=attempt.id,
            node_id=part.node_id,
            node_rank=rank,
            slots=sorted(part.slots),
            accelerator=nodes[part.node_id].accelerator,
            state=AllocationState.OFFERED,
            dispatch_seq=1,
        )
        for rank, part in enumerate(placement.parts)
    }
    session.add_all(allocations.values())
    session.flush()
    return allocations


def _tell_offered(session: Session, job: Job, attempt: Attempt, placement: Placement) -> None:
    """All nodes by rank; where there is but one, it alone."""
    parts: list[dict[str, Any]] = [
        {"node": node_id, "slots": sorted(slots)} for node_id, slots in placement.parts
    ]
    where = [f"slots {', '.join(map(str, part['slots']))} of {part['node']}" for part in parts]
    reason = f"Offered {' and '.join(where)}, try {attempt.number}."
    told = {"attempt": attempt.number, **(parts[0] if len(parts) == 1 else {"nodes": parts})}
    move(session, job, JobState.DISPATCHED, actor=ACTOR, reason=reason, data=told)
