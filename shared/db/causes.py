"""Of the ends of an attempt's allocations, the one that counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shared.db.models import Allocation, Attempt
from shared.domain.failures import NO_PROGRESS, PEER_LOST
from shared.domain.job import AttemptState, Outcome


def ends_the_others(attempt: Attempt, allocations: Sequence[Allocation]) -> bool:
    """Whether what has ended means that the other nodes are to be killed.

    Ranks that were asked to stop leave together: a node that has left first must not cut off the one that
    still writes their checkpoint. Where no rank has run yet, nobody writes one.
    """
    if cause_of(allocations) is None:
        return False
    has_left = any(one.outcome is Outcome.STOPPED for one in allocations)
    return not has_left or attempt.state is AttemptState.OFFERED


def cause_of(allocations: Sequence[Allocation]) -> Allocation | None:
    """The allocation that tells how the attempt ended; None if it is a success.

    Node rank 0 holds the result, and the checkpoint of a stop: once it has them, what becomes of its peers
    changes nothing. Otherwise the earliest failure counts. A peer that left as asked comes behind those, as
    it says nothing of the checkpoint, and one that only waited for another behind all.
    """
    if allocations[0].outcome is Outcome.SUCCEEDED:
        return None
    if allocations[0].outcome is Outcome.STOPPED and allocations[0].error is None:
        return allocations[0]
    failures = [one for one in allocations if one.outcome not in (None, Outcome.SUCCEEDED)]
    return min(failures, key=_when, default=None)


def node_of(cause: Allocation, allocations: Sequence[Allocation]) -> str:
    """The node of the rank that the cause is about, else its own.

    What the ranks have found together, such as a loss that is not finite, each of them tells of.
    """
    rank = (cause.error or {}).get("rank")
    node_rank = cause.node_rank if rank is None else rank // len(cause.slots)
    return next((one.node_id for one in allocations if one.node_rank == node_rank), cause.node_id)


def _when(allocation: Allocation) -> tuple[bool, bool, float]:
    error = allocation.error or {}
    has_left = allocation.outcome is Outcome.STOPPED and not error
    ended_at = allocation.ended_at.timestamp() if allocation.ended_at else math.inf
    return _only_waited(error), has_left, float(error.get("time", ended_at))


def _only_waited(error: Mapping[str, Any]) -> bool:
    """Whether these ranks saw another go, or waited for one that hangs: whose own end tells more."""
    code = error.get("code")
    return code == PEER_LOST or (code == NO_PROGRESS and error.get("rank") is None)
