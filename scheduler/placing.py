"""One scheduling pass: read nodes and queue, decide, write offers and reasons."""

from __future__ import annotations

from sqlalchemy.orm import Session

from shared.db import placement
from shared.db.placement import Offer
from shared.domain import fairshare
from shared.domain.job import YIELD_S
from shared.settings import Settings

_BEATS_UNTIL_SILENT = 3


def place_jobs(session: Session, settings: Settings) -> list[Offer]:
    """Place what can be placed now; the caller commits, then publishes. Empty while another copy places."""
    if not placement.lock_pass(session):
        return []
    queue = placement.load_queue(session, yield_s=settings.scaled(YIELD_S))
    if not queue.waiting:
        return []
    heard_within_s = settings.scaled(settings.node_heartbeat_s) * _BEATS_UNTIL_SILENT
    nodes = placement.load_nodes(session, heard_within_s=heard_within_s)
    decision = fairshare.decide(nodes, queue.waiting)
    offers = [placement.place(session, placed) for placed in decision.placements]
    new = {id: reason for id, reason in decision.reasons.items() if queue.reasons[id] != reason}
    placement.store_reasons(session, new)
    return [offer for offer in offers if offer is not None]
