"""Offers of jobs of several nodes, which the scheduler does not make yet: as `place` would, for each node."""

from __future__ import annotations

from collections.abc import Sequence

from dispatch_rows import World
from sqlalchemy.orm import Session

from shared.db.engine import transaction
from shared.db.models import Allocation, Slot
from shared.db.placement import Offer, place
from shared.domain.cluster import Placement
from shared.domain.job import AllocationState, SlotState, transition
from shared.ids import new_id

Share = tuple[str, tuple[int, ...]]


def offer_gang(world: World, job_id: str, shares: Sequence[Share]) -> list[Offer]:
    """Place a job on the (node, slots) of each share, all in one transaction; empty where `place` refuses."""
    (node, slots), *rest = shares
    with transaction(world.engine) as session:
        first = place(session, Placement(job_id, node, slots))
        if first is None:
            return []
        attempt_id = session.get_one(Allocation, first.allocation_id).attempt_id
        others = [_offer(session, attempt_id, rank, *share) for rank, share in enumerate(rest, start=1)]
        return [first, *others]


def _offer(session: Session, attempt_id: str, rank: int, node: str, slots: tuple[int, ...]) -> Offer:
    allocation = Allocation(
        id=new_id("alloc"),
        attempt_id=attempt_id,
        node_id=node,
        node_rank=rank,
        slots=list(slots),
        accelerator="cpu",
        state=AllocationState.OFFERED,
        dispatch_seq=1,
    )
    session.add(allocation)
    session.flush()
    for index in slots:
        slot = session.get_one(Slot, (node, index))
        transition(slot, SlotState.HELD)
        slot.allocation_id = allocation.id
    return Offer(allocation.id, allocation.dispatch_seq, node)
