"""A run that gets no further, in words: which rank hangs where."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shared.domain.events import ErrorReport, OutcomeReport
from shared.domain.failures import NO_PROGRESS, outcome_of
from worker.stacks import Standing


def no_progress(stall_s: float, standings: Sequence[Standing]) -> OutcomeReport:
    """How a run ends whose ranks, standing so, got no further for `stall_s`.

    One that somebody has stopped is at fault; else one that stands outside of torch, where its peers wait.
    """
    words = "; ".join(_in_words(standing) for standing in standings) or "no rank said where it stands"
    stopped = [one.rank for one in standings if one.is_stopped]
    at_fault = stopped or [one.rank for one in standings if one.frame and not one.waits_in_torch]
    error = ErrorReport(
        code=NO_PROGRESS,
        message=f"no rank got any further for {stall_s:g} s: {words}",
        traceback="\n".join(f"rank {one.rank}:\n{one.dump}" for one in standings) or None,
        rank=at_fault[0] if len(at_fault) == 1 else None,
        time=time.time(),
    )
    return OutcomeReport(outcome=outcome_of(NO_PROGRESS), error=error)


def _in_words(standing: Standing) -> str:
    if standing.is_stopped:
        return f"rank {standing.rank} is stopped by a signal (SIGSTOP) that Thaw did not send"
    where = f"stands in {standing.frame}" if standing.frame else "did not say where it stands"
    return f"rank {standing.rank} {where}"
