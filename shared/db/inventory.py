"""What the nodes have, as far as a person may see it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.models import NodeRow, Slot


@dataclass(frozen=True)
class NodeView:
    """A node and its slots by index."""

    node: NodeRow
    slots: list[Slot]


def all_nodes(session: Session) -> list[NodeView]:
    """Every node that ever registered, by name."""
    slots: dict[str, list[Slot]] = {}
    for slot in session.scalars(select(Slot).order_by(Slot.node_id, Slot.index)):
        slots.setdefault(slot.node_id, []).append(slot)
    nodes = session.scalars(select(NodeRow).order_by(NodeRow.id))
    return [NodeView(node, slots.get(node.id, [])) for node in nodes]
