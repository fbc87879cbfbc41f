"""Where the ranks of an attempt meet, and where its nodes reach one another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.models import Allocation, Attempt, NodeRow


@dataclass(frozen=True)
class Peer:
    """Another node of an attempt, and where the ranks would meet if it were the first."""

    node_id: str
    host: str
    port: int


def meeting_place(node: NodeRow, slots: Iterable[int]) -> tuple[str, int]:
    """Host and port at which a run that has these slots of its first node meets."""
    return node.advertise_host, node.port_base + min(slots)


def peers_before(session: Session, attempt_id: str, node_rank: int) -> list[Peer]:
    """The nodes of an attempt that have a lower rank, by rank."""
    rows = session.execute(
        select(Allocation, NodeRow, Attempt)
        .join(NodeRow, NodeRow.id == Allocation.node_id)
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .where(Allocation.attempt_id == attempt_id, Allocation.node_rank < node_rank)
        .order_by(Allocation.node_rank)
    )
    return [Peer(node.id, *_reached_at(allocation, node, attempt)) for allocation, node, attempt in rows]


def _reached_at(allocation: Allocation, node: NodeRow, attempt: Attempt) -> tuple[str, int]:
    """Of the first node, where the ranks do meet: it may have registered anew since."""
    if allocation.node_rank == 0:
        return attempt.master_addr, attempt.master_port
    return meeting_place(node, allocation.slots)
