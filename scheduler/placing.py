"""One scheduling pass: read nodes and queue, decide, write offers and reasons."""

from __future__ import annotations

from collections.abc import Mapping
from random import shuffle

from sqlalchemy.orm import Session

from shared.db import placement
from shared.db.held_slots import ask_back, load_running
from shared.db.past_usage import PastUsage
from shared.db.placement import Offer
from shared.db.quotas import load_shares
from shared.domain import fairshare
from shared.domain.job import YIELD_S
from shared.settings import Settings

# A pass holds what it writes until its commit: where thousands of slots are free, the next one goes on, and
# so it is where thousands of jobs have to be told something else.
_MOST_PLACED = 256
_MOST_TOLD = 5_000


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
    placement.store_reasons(session, _to_tell(decision.reasons, queue.reasons))
    return offers


def _to_tell(reasons: Mapping[str, str], known: Mapping[str, str | None]) -> dict[str, str]:
    """What is new of why jobs wait: first to those that know nothing, of the others by chance, so that each
    has its turn however often it changes for all.
    """
    new = [id for id, reason in reasons.items() if known[id] != reason]
    if len(new) > _MOST_TOLD:
        shuffle(new)
        new.sort(key=lambda id: known[id] is not None)
    return {id: reasons[id] for id in new[:_MOST_TOLD]}


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
