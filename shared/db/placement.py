"""What the scheduler reads and writes: nodes with room, the queue in order, offers."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import uuid4

from sqlalchemy import ARRAY, Float, Text, and_, any_, cast, func, literal, or_, select, update
from sqlalchemy.orm import Session

from shared.db.checkpoints import newest_checkpoints
from shared.db.clock import seconds_ago
from shared.db.history import lock_jobs, move
from shared.db.models import Allocation, Attempt, Job, NodeRow, Slot, Team
from shared.db.peers import meeting_place
from shared.domain.addresses import Address, out_of_reach
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
    """Every node that is not lost. One that is leaving, suspect or silent shows no free slots; of others
    those on a GPU that is not fit for work are left out.
    """
    fit = and_(NodeRow.state == NodeState.READY, NodeRow.last_seen_at > seconds_ago(heard_within_s))
    free = func.array_agg(Slot.index).filter(
        and_(Slot.state == SlotState.FREE, Slot.unhealthy_reason.is_(None), fit)
    )
    rows = session.execute(
        select(
            NodeRow.id,
            NodeRow.accelerator,
            NodeRow.memory_bytes,
            NodeRow.models,
            NodeRow.advertise_host,
            NodeRow.machine,
            func.count().label("n_slots"),
            free.label("free_slots"),
            func.bool_or(fit).label("takes_work"),
        )
        .join(Slot, Slot.node_id == NodeRow.id)
        .where(NodeRow.state != NodeState.LOST)
        .group_by(NodeRow.id)
    ).all()
    # Not of silent ones: a machine that started anew is another, and its nodes of before stay for a while.
    unreached = out_of_reach(
        {row.id: Address(row.advertise_host, row.machine) for row in rows if row.takes_work}
    )
    return [
        Node(
            id=row.id,
            accelerator=row.accelerator,
            n_slots=row.n_slots,
            free_slots=tuple(sorted(row.free_slots or ())),
            models=frozenset((name, hash) for name, hash in row.models),
            takes_work=row.takes_work,
            memory_bytes=row.memory_bytes,
            is_out_of_reach=row.id in unreached,
        )
        for row in rows
    ]


@dataclass(frozen=True)
class Queue:
    """The queued jobs, and the reason to wait that stands at each of them."""

    waiting: list[Waiting]
    reasons: dict[str, str | None]

    @property
    def is_shared(self) -> bool:
        """Whether several teams wait: only then does it matter whose turn it is, and what they have held."""
        return len({job.team for job in self.waiting}) > 1


def load_queue(session: Session, *, yield_s: float = 0.0) -> Queue:
    """All queued jobs but those that handed their slots to others less than `yield_s` seconds ago.

    Nor those of a team that is being deleted: they are about to be cancelled. Of `resolved`, which may be
    large, only the network that is trained.
    """
    going = select(Team.id).where(Team.deletion_asked_at.is_not(None))
    rows = session.execute(
        select(
            Job.id,
            Job.team_id,
            Job.priority,
            cast(func.extract("epoch", Job.queued_at), Float).label("queued_at"),
            Job.nodes,
            Job.devices_per_node,
            Job.accelerator,
            Job.memory_bytes,
            Job.wait_reason,
            Job.resolved["target"].astext.label("target"),
        ).where(
            Job.state == JobState.QUEUED,
            or_(Job.preempted_at.is_(None), Job.preempted_at <= seconds_ago(yield_s)),
            Job.team_id.not_in(going),
        )
    ).all()
    waiting = [
        Waiting(
            id=row.id,
            order=(-row.priority, row.queued_at, row.id),
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


@lru_cache(maxsize=10_000)
def _registered(target: str) -> tuple[str, str] | None:
    """From JSON: jobs by the thousand train the same few networks, each of which is read once."""
    network = json.loads(target)
    return (network["name"], network.get("hash", "")) if network["source"] == "registered" else None


def place(session: Session, placement: Placement) -> list[Offer]:
    """Hold the slots, write the attempt and an offer to each of its nodes, by node rank.

    All or none: empty when the job, one of the nodes or one of the slots is busy now.
    """
    return place_all(session, [placement])


def place_all(session: Session, placements: Sequence[Placement]) -> list[Offer]:
    """Each of them as `place` does it, with as few statements for all as for one."""
    if not placements:
        return []
    nodes = _lock_ready_nodes(session, {part.node_id for one in placements for part in one.parts})
    jobs = lock_jobs(session, [one.job_id for one in placements], (JobState.QUEUED,))
    slots = _lock_free_slots(session, nodes)
    able = [one for one in placements if one.job_id in jobs and slots.keys() >= set(_slots_of(one))]
    attempts = _new_attempts(session, [jobs[one.job_id] for one in able], nodes, able)
    allocations = _new_allocations(session, attempts, nodes, able)
    for one in able:
        job, attempt = jobs[one.job_id], attempts[one.job_id]
        for place in _slots_of(one):
            transition(slots[place], SlotState.HELD)
            slots[place].allocation_id = allocations[attempt.id, place[0]].id
        job.wait_reason = None
        _tell_offered(session, job, attempt, one)
    session.flush()
    return [Offer(one.id, one.dispatch_seq, one.node_id) for one in allocations.values()]


def _slots_of(placement: Placement) -> list[tuple[str, int]]:
    return [(part.node_id, index) for part in placement.parts for index in part.slots]


def store_reasons(session: Session, reasons: Mapping[str, str]) -> None:
    """Write why jobs wait, where it has changed; a job that somebody holds is left to the next pass."""
    if not reasons:
        return
    asked = literal(list(reasons), ARRAY(Text))
    free = session.scalars(
        select(Job.id)
        .where(Job.id == any_(asked), Job.state == JobState.QUEUED)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    ).all()
    # As two columns, so that ten thousand are one statement.
    ids, words = literal(free, ARRAY(Text)), literal([reasons[job_id] for job_id in free], ARRAY(Text))
    told = select(func.unnest(ids).label("id"), func.unnest(words).label("reason")).subquery()
    session.execute(
        update(Job)
        .where(Job.id == told.c.id)
        .values(wait_reason=told.c.reason)
        .execution_options(synchronize_session=False)
    )


def _lock_ready_nodes(session: Session, node_ids: Collection[str]) -> dict[str, NodeRow]:
    """Those that are ready, and stay so until the commit: one that starts to leave sees every offer to it.

    Here, for jobs and for slots: always in the order of their ids, whatever the ranks are, and nobody is
    waited for.
    """
    nodes = session.scalars(
        select(NodeRow)
        .where(NodeRow.id.in_(node_ids), NodeRow.state == NodeState.READY)
        .order_by(NodeRow.id)
        .with_for_update(read=True, skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return {node.id: node for node in nodes}


def _lock_free_slots(session: Session, node_ids: Collection[str]) -> dict[tuple[str, int], Slot]:
    """By node and index, all that are free there: who places is alone in wanting them."""
    slots = session.scalars(
        select(Slot)
        .where(Slot.node_id.in_(node_ids), Slot.state == SlotState.FREE, Slot.unhealthy_reason.is_(None))
        .order_by(Slot.node_id, Slot.index)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return {(slot.node_id, slot.index): slot for slot in slots}


def _new_attempts(
    session: Session, jobs: Sequence[Job], nodes: Mapping[str, NodeRow], placements: Sequence[Placement]
) -> dict[str, Attempt]:
    """By job. The ranks of all nodes meet on that of rank 0."""
    ids = [job.id for job in jobs]
    last = _last_numbers(session, ids)
    checkpoints = newest_checkpoints(session, ids)
    attempts = {}
    for job, placement in zip(jobs, placements, strict=True):
        first = placement.parts[0]
        master_addr, master_port = meeting_place(nodes[first.node_id], first.slots)
        attempts[job.id] = Attempt(
            id=new_id("attempt"),
            job_id=job.id,
            number=last.get(job.id, 0) + 1,
            state=AttemptState.OFFERED,
            nodes=job.nodes,
            claimed=0,
            lease_token=uuid4(),
            master_addr=master_addr,
            master_port=master_port,
            resume_from=checkpoints.get(job.id),
        )
    session.add_all(attempts.values())
    session.flush()
    return attempts


def _last_numbers(session: Session, job_ids: Collection[str]) -> dict[str, int]:
    query = select(Attempt.job_id, func.max(Attempt.number)).where(Attempt.job_id.in_(job_ids))
    return dict(session.execute(query.group_by(Attempt.job_id)).all())


def _new_allocations(
    session: Session,
    attempts: Mapping[str, Attempt],
    nodes: Mapping[str, NodeRow],
    placements: Iterable[Placement],
) -> dict[tuple[str, str], Allocation]:
    """By attempt and node, of each attempt in the order of the ranks."""
    allocations = {}
    for placement in placements:
        attempt_id = attempts[placement.job_id].id
        for rank, part in enumerate(placement.parts):
            allocations[attempt_id, part.node_id] = Allocation(
                id=new_id("alloc"),
                attempt_id=attempt_id,
                node_id=part.node_id,
                node_rank=rank,
                slots=sorted(part.slots),
                accelerator=nodes[part.node_id].accelerator,
                state=AllocationState.OFFERED,
                dispatch_seq=1,
            )
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
