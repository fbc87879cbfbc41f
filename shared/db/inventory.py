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
    rows = session.execute(
        select(NodeRow, Slot).outerjoin(Slot, Slot.node_id == NodeRow.id).order_by(NodeRow.id, Slot.index)
    )
    views: dict[str, NodeView] = {}
    for node, slot in rows:
        view = views.setdefault(node.id, NodeView(node, []))
        if slot is not None:
            view.slots.append(slot)
    return list(views.values())
