"""One scheduling pass: read nodes and queue, decide, write offers and reasons."""

from __future__ import annotations

from sqlalchemy.orm import Session

from shared.db import placement
from shared.db.held_slots import ask_back, load_running
from shared.db.past_usage import past_usage
from shared.db.placement import Offer
from shared.db.quotas import load_shares
from shared.domain import fairshare
from shared.domain.job import YIELD_S
from shared.settings import Settings


def place_jobs(session: Session, settings: Settings) -> list[Offer]:
    """Place what can be placed now, and ask borrowed slots back; the caller commits, then publishes.

    Empty while another copy places.
    """
    if not placement.lock_pass(session):
        return []
    queue = placement.load_queue(session, yield_s=settings.scaled(YIELD_S))
    if not queue.waiting:
        return []
    decision = _decide(session, settings, queue)
    offers = [offer for placed in decision.placements for offer in placement.place(session, placed)]
    for preemption in decision.preemptions:
        ask_back(session, preemption, actor=placement.ACTOR)
    new = {id: reason for id, reason in decision.reasons.items() if queue.reasons[id] != reason}
    placement.store_reasons(session, new)
    return offers


def _decide(session: Session, settings: Settings, queue: placement.Queue) -> fairshare.Decision:
    is_shared = len({job.team for job in queue.waiting}) > 1
    return fairshare.decide(
        placement.load_nodes(session, heard_within_s=settings.heard_within_s),
        queue.waiting,
        running=load_running(session),
        teams=load_shares(session),
        # Whose turn it is matters only where several teams wait.
        past=past_usage(session, half_life_s=settings.usage_half_life_s) if is_shared else {},
    )
