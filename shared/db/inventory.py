"""What the nodes have, as far as a person may see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.drains import no_such_node
from shared.db.models import Allocation, Attempt, Job, NodeRow, Slot
from shared.db.storable import comparable

Holders: TypeAlias = Mapping[tuple[str, int], str]
"""(node, slot's index) -> the job that holds the slot."""


@dataclass(frozen=True)
class KnownNode:
    """A node and its slots by index."""

    node: NodeRow
    slots: list[Slot]


def one_node(session: Session, node_id: str) -> KnownNode:
    """The node of that name. Raises NotFound, naming those that are near."""
    node = session.scalar(select(NodeRow).where(NodeRow.id == comparable(node_id)))
    if node is None:
        raise no_such_node(session, node_id)
    slots = session.scalars(select(Slot).where(Slot.node_id == node.id).order_by(Slot.index))
    return KnownNode(node, list(slots))


def holders(session: Session, team_id: str | None) -> Holders:
    """Which jobs hold which slots: those of one team, or of all for an admin (None)."""
    query = (
        select(Slot.node_id, Slot.index, Job.id)
        .join(Allocation, Allocation.id == Slot.allocation_id)
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
    )
    if team_id is not None:
        query = query.where(Job.team_id == team_id)
    return {(node_id, index): job_id for node_id, index, job_id in session.execute(query)}


def all_nodes(session: Session) -> list[KnownNode]:
    """Every node that ever registered, by name."""
    rows = session.execute(
        select(NodeRow, Slot).outerjoin(Slot, Slot.node_id == NodeRow.id).order_by(NodeRow.id, Slot.index)
    )
    found: dict[str, KnownNode] = {}
    for node, slot in rows:
        known = found.setdefault(node.id, KnownNode(node, []))
        if slot is not None:
            known.slots.append(slot)
    return list(found.values())
