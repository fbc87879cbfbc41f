"""Offers as their node sees them."""

from __future__ import annotations

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from shared.db.clock import seconds_ago
from shared.db.models import Allocation, Attempt
from shared.domain.job import AllocationState


def offer_waits(session: Session, node_id: str, *, for_s: float) -> bool:
    """Whether an offer to the node has stood unanswered for that long; made anew, it is the same offer."""
    waits = exists().where(
        Allocation.node_id == node_id,
        Allocation.state == AllocationState.OFFERED,
        Attempt.id == Allocation.attempt_id,
        Attempt.created_at < seconds_ago(for_s),
    )
    return bool(session.scalar(select(waits)))
