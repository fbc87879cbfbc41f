"""A node in the database: it registers, is heard of, cleans its slots, leaves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, delete, false, func, literal, not_, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.clock import seconds_ago
from shared.db.drains import unless_drained
from shared.db.endings import finish
from shared.db.models import Allocation, Attempt, NodeRow, Slot
from shared.domain.errors import Conflict
from shared.domain.events import ErrorReport
from shared.domain.failures import WORKER_LOST
from shared.domain.job import AllocationState, NodeState, Outcome, SlotState, transition


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself.

    `models`: (name, hash) of the registered models installed there. `home`: the id of its work folder,
    `machine`: whose loopback it has, None where nothing is known of it. `unhealthy`: slot -> why its GPU is
    not fit for work.
    """

    id: str
    queue: str
    advertise_host: str
    port_base: int
    accelerator: str
    memory_bytes: int | None
    n_slots: int
    models: tuple[tuple[str, str], ...]
    home: UUID | None = None
    machine: str | None = None
    unhealthy: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """An allocation that a node has claimed."""

    allocation_id: str
    token: UUID
    slots: tuple[int, ...]


def register(session: Session, facts: NodeFacts, incarnation: UUID, *, taken_for_s: float = 0.0) -> None:
    """Enter the node, or take it over from its earlier worker, whose claims no longer count.

    Raises Conflict where a worker with another work folder was heard of under this name within `taken_for_s`
    seconds: what it runs cannot be seen from here, and must not be taken for dead.
    """
    _refuse_a_taken_name(session, facts, taken_for_s)
    values = {
        "incarnation": incarnation,
        "home": facts.home,
        "queue": facts.queue,
        "advertise_host": facts.advertise_host,
        "machine": facts.machine,
        "port_base": facts.port_base,
        "accelerator": facts.accelerator,
        "memory_bytes": facts.memory_bytes,
        "models": [list(model) for model in facts.models],
        "state": NodeState.READY,
        "suspect_until": None,
        "registered_at": func.clock_timestamp(),
        "last_seen_at": func.clock_timestamp(),
    }
    node = upsert(NodeRow).values(id=facts.id, **values)
    taken_over = {**values, "state": unless_drained(literal(NodeState.READY, NodeRow.state.type))}
    session.execute(node.on_conflict_do_update(index_elements=["id"], set_=taken_over))
    rows = [{"node_id": facts.id, "index": n, "state": SlotState.FREE} for n in range(facts.n_slots)]
    session.execute(upsert(Slot).values(rows).on_conflict_do_nothing())
    session.execute(
        delete(Slot).where(
            Slot.node_id == facts.id, Slot.index >= facts.n_slots, Slot.state != SlotState.HELD
        )
    )
    tell_health(session, facts.id, facts.unhealthy)


def _refuse_a_taken_name(session: Session, facts: NodeFacts, taken_for_s: float) -> None:
    other = session.scalar(
        select(NodeRow.advertise_host)
        .where(
            NodeRow.id == facts.id,
            NodeRow.home != facts.home,
            NodeRow.last_seen_at > seconds_ago(taken_for_s),
        )
        .with_for_update()
    )
    if other is not None:
        raise Conflict(
            f"the node name {facts.id!r} is taken: a worker with another work folder, advertised as {other}, "
            f"was heard of within {taken_for_s:g} s. Give each node its own THAW_NODE_NAME; where that "
            "worker is gone for good, wait that long",
            code="node_name_taken",
        )


def beat(session: Session, node_id: str, incarnation: UUID, *, reachable: bool) -> bool:
    """The node is heard of. `reachable`: it hears its queue too. False: another worker took the node over.

    A suspect node is ready again when its time is over; a leaving one stays so, as does a drained one.
    """
    over = or_(NodeRow.suspect_until.is_(None), NodeRow.suspect_until < func.clock_timestamp())
    ready = literal(NodeState.READY, NodeRow.state.type)
    suspect = literal(NodeState.SUSPECT, NodeRow.state.type)
    state = case(
        (NodeRow.state == NodeState.DRAINING, NodeRow.state),
        (literal(reachable) & over, ready),
        else_=suspect,
    )
    heard = session.scalar(
        update(NodeRow)
        .where(NodeRow.id == node_id, NodeRow.incarnation == incarnation)
        .values(last_seen_at=func.clock_timestamp(), state=unless_drained(state))
        .returning(NodeRow.id)
        .execution_options(synchronize_session=False)
    )
    return heard is not None


def tell_health(session: Session, node_id: str, unhealthy: Mapping[int, str]) -> None:
    """Slot -> why its GPU is not fit for work; the others are. What a slot is doing stays as it is."""
    slots = session.scalars(
        select(Slot)
        .where(Slot.node_id == node_id, _says_otherwise(unhealthy))
        .order_by(Slot.index)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for slot in slots:
        slot.unhealthy_reason = unhealthy.get(slot.index)
    session.flush()


def _says_otherwise(unhealthy: Mapping[int, str]) -> ColumnElement[bool]:
    """Most beats change nothing, and then lock no slot."""
    told = [and_(Slot.index == index, Slot.unhealthy_reason == why) for index, why in unhealthy.items()]
    healthy = and_(Slot.index.not_in(list(unhealthy)), Slot.unhealthy_reason.is_(None))
    return not_(func.coalesce(or_(healthy, *told), false()))


def dirty_slots(session: Session, node_id: str) -> list[int]:
    """Slots of the node of which nobody knows whether a process is left there."""
    return list(
        session.scalars(select(Slot.index).where(Slot.node_id == node_id, Slot.state == SlotState.DIRTY))
    )


def clean_slots(session: Session, node_id: str, indexes: Sequence[int], *, n_slots: int) -> None:
    """The node has seen that no process is left on these slots. Those beyond its `n_slots` are gone."""
    slots = session.scalars(
        select(Slot)
        .where(Slot.node_id == node_id, Slot.index.in_(indexes), Slot.state == SlotState.DIRTY)
        .order_by(Slot.index)
        .with_for_update()
    )
    for slot in slots:
        transition(slot, SlotState.FREE)
        if slot.index >= n_slots:
            session.delete(slot)


def claimed_by(session: Session, node_id: str) -> list[Held]:
    """Everything that the node holds a lease on, under whichever incarnation."""
    rows = session.execute(
        select(Allocation.id, Attempt.lease_token, Allocation.slots)
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .where(Allocation.node_id == node_id, Allocation.state == AllocationState.CLAIMED)
    )
    return [Held(id, token, tuple(slots)) for id, token, slots in rows]


def give_up(session: Session, held: Held, *, actor: str) -> bool:
    """End an allocation whose processes are all gone: its worker will never report.

    Its slots are dirty now, for the node to clean as any other.
    """
    message = f"the worker on {actor} ended while it ran the job"
    return finish(
        session,
        token=held.token,
        allocation_id=held.allocation_id,
        outcome=Outcome.LOST,
        error=ErrorReport(code=WORKER_LOST, message=message, time=time.time()),
        result=None,
        artifacts=(),
        clean=False,
        actor=actor,
    )
