"""One scheduling pass: read nodes and queue, decide, write offers and reasons."""

from __future__ import annotations

from sqlalchemy.orm import Session

from shared.db import placement
from shared.db.held_slots import ask_back, load_running
from shared.db.past_usage import PastUsage
from shared.db.placement import Offer
from shared.db.quotas import load_shares
from shared.domain import fairshare
from shared.domain.job import YIELD_S
from shared.settings import Settings

# A pass holds what it places until its commit: where thousands of slots are free, the next one goes on.
_MOST_PLACED = 256


def place_jobs(session: Session, settings: Settings, past: PastUsage | None = None) -> list[Offer]:
    """Place what can be placed now, and ask borrowed slots back; the caller commits, then publishes.

    Empty while another copy places. `past`: kept by who makes pass after pass, and read anew where left out.
    """
    if not placement.lock_pass(session):
        return []
    queue = placement.load_queue(session, yield_s=settings.scaled(YIELD_S))
    if not queue.waiting:
        return []
    decision = _decide(session, queue, settings, past or PastUsage(settings.usage_half_life_s))
    offers = placement.place_all(session, decision.placements[:_MOST_PLACED])
    if decision.preemptions:
        ask_back(session, decision.preemptions, actor=placement.ACTOR)
    new = {id: reason for id, reason in decision.reasons.items() if queue.reasons[id] != reason}
    placement.store_reasons(session, new)
    return offers


def _decide(
    session: Session, queue: placement.Queue, settings: Settings, past: PastUsage
) -> fairshare.Decision:
    return fairshare.decide(
        placement.load_nodes(session, heard_within_s=settings.heard_within_s),
        queue.waiting,
        running=load_running(session),
        teams=load_shares(session),
        past=past.read(session) if queue.is_shared else {},
    )
