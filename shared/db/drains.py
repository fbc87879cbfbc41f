"""Nodes that are taken away: by an operator, until the operator gives them back, or by a worker that leaves.

An operator's word stands beside the state and outlasts heartbeats, restarts and the loss of the node. The
request only writes it down; the scheduler's next pass asks the jobs there to leave, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, literal, select, update
from sqlalchemy.orm import Session

from shared.db.endings import lock_allocations, settle, withdraw_offers
from shared.db.fence import lock_attempt
from shared.db.models import Allocation, Attempt, Job, NodeRow
from shared.db.stops import ask_to_stop
from shared.db.storable import comparable
from shared.domain.errors import NotFound
from shared.domain.job import (
    LIVE_ALLOCATION_STATES,
    LIVE_ATTEMPT_STATES,
    JobState,
    NodeState,
    StopReason,
)
from shared.domain.near_names import nearest

BATCH = 100


def drain(session: Session, node_id: str, *, actor: str) -> None:
    """Give the node no more offers, whatever its worker says, until `undrain`. Again, it changes nothing.

    Raises NotFound.
    """
    node = _lock_node(session, node_id)
    if node.drained_at is not None:
        return
    node.drained_at, node.drained_by = func.clock_timestamp(), actor
    if node.state is not NodeState.LOST:
        node.state = NodeState.DRAINING


def undrain(session: Session, node_id: str) -> None:
    """Take `drain` back: the node is ready with its next heartbeat. Again, it changes nothing.

    Raises NotFound.
    """
    node = _lock_node(session, node_id)
    if node.drained_at is None:
        return
    node.drained_at = node.drained_by = None
    if node.state is NodeState.DRAINING:
        # Not ready at once: a worker that leaves by itself would say so only then.
        node.state, node.suspect_until = NodeState.SUSPECT, None


def unless_drained(state: ColumnElement[NodeState]) -> ColumnElement[NodeState]:
    """`state` for a node that no operator has taken away, else draining."""
    draining = literal(NodeState.DRAINING, NodeRow.state.type)
    return case((NodeRow.drained_at.is_not(None), draining), else_=state)


def start_drain(session: Session, node_id: str, incarnation: UUID) -> list[UUID]:
    """The node's worker leaves: no more offers. Returns the tokens of attempts that have a share there."""
    session.execute(
        update(NodeRow)
        .where(NodeRow.id == node_id, NodeRow.incarnation == incarnation)
        .values(state=NodeState.DRAINING)
    )
    return list(
        session.scalars(
            select(Attempt.lease_token)
            .join(Allocation)
            .where(
                Allocation.node_id == node_id,
                Allocation.state.in_(LIVE_ALLOCATION_STATES),
                Attempt.state.in_(LIVE_ATTEMPT_STATES),
            )
        )
    )


@dataclass(frozen=True)
class Occupied:
    """An attempt with a share on a drained node, and who drained that."""

    token: UUID
    node_id: str
    drained_by: str


def on_drained_nodes(session: Session) -> Sequence[Occupied]:
    """Attempts whose job has not been asked to leave a drained node yet."""
    rows = session.execute(
        select(Attempt.lease_token, NodeRow.id, NodeRow.drained_by)
        .join(Allocation, Allocation.attempt_id == Attempt.id)
        .join(NodeRow, NodeRow.id == Allocation.node_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(
            NodeRow.drained_at.is_not(None),
            Allocation.state.in_(LIVE_ALLOCATION_STATES),
            Attempt.state.in_(LIVE_ATTEMPT_STATES),
            Job.state.in_((JobState.DISPATCHED, JobState.RUNNING)),
        )
        .limit(BATCH)
    )
    return [Occupied(token, node_id, by or "") for token, node_id, by in rows]


def vacate(session: Session, occupied: Occupied) -> None:
    """Ask the job to leave the drained node."""
    reason = f"The node {occupied.node_id} is drained."
    leave(session, occupied.token, node_id=occupied.node_id, actor=occupied.drained_by, reason=reason)


def leave(session: Session, token: UUID, *, node_id: str, actor: str, reason: str) -> None:
    """Ask an attempt's job to leave a node: it checkpoints and waits again, with no attempt used up.

    An offer that is not wholly answered is taken back instead.
    """
    found = lock_attempt(session, token)
    if found is None:
        return
    job, attempt = found
    allocations = lock_allocations(session, attempt)
    if not any(one.node_id == node_id and one.state in LIVE_ALLOCATION_STATES for one in allocations):
        return
    if job.state is JobState.RUNNING:
        ask_to_stop(session, job, StopReason.DRAIN, actor=actor, reason=reason)
    elif job.state is JobState.DISPATCHED:
        withdraw_offers(session, allocations)
        settle(session, job, attempt, allocations, actor=actor)


def _lock_node(session: Session, node_id: str) -> NodeRow:
    query = select(NodeRow).where(NodeRow.id == comparable(node_id)).with_for_update()
    node = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if node is None:
        raise no_such_node(session, node_id)
    return node


def no_such_node(session: Session, node_id: str) -> NotFound:
    """The error for a name that no node has, with the names that are near."""
    near = nearest(node_id, list(session.scalars(select(NodeRow.id))))
    hint = f"; the nearest names are {', '.join(near)}" if near else "; no node has registered yet"
    return NotFound(f"no node {node_id!r}{hint}")
