"""How long a job stood still: from the fault that ended an attempt to the next attempt's first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.injector import Injected
from harness.testimony import AttemptLog
from harness.workload import Ended, Followed


@dataclass(frozen=True)
class Recovery:
    """Seconds on this machine: until the job was offered and taken again, and from there to its next step.

    The first part is made of leases and offers, and so shortened by the time scale; the second, the start of
    processes, is not. Left out is `queued`, the time in which the job waited for a free slot.
    """

    job: str
    noticing: float
    queued: float
    starting: float

    def at_default_leases(self, scale: float) -> float:
        return self.noticing / scale + self.starting


def recoveries(
    followed: Sequence[Followed],
    ended: Mapping[str, Ended],
    attempts: Sequence[AttemptLog],
    faults: Sequence[Injected],
) -> list[Recovery]:
    """One for each attempt that was lost and followed by one that made a step."""
    return [found for job in followed for found in _of_job(job, ended[job.id], attempts, faults)]


def _of_job(
    job: Followed, one: Ended, attempts: Sequence[AttemptLog], faults: Sequence[Injected]
) -> list[Recovery]:
    moves = [(at, str(event.data["new"])) for at, event in job.heard if "new" in event.data]
    steps = {log.attempt: log.first_step for log in attempts if log.job == job.id}
    lost = [raw["id"] for raw in one.job.raw["attempts"] if raw["outcome"] == "lost"]
    backs = _returns(moves)
    order = [raw["id"] for raw in one.job.raw["attempts"]]
    found = []
    for attempt, back in zip(lost, backs, strict=False):
        fault = _cause(attempt, back, faults)
        following = [steps.get(later) for later in order[order.index(attempt) + 1 :]]
        step = next((moment for moment in following if moment is not None), None)
        if fault is not None and step is not None:
            found.append(_measured(job.id, moves, fault.at, back, step))
    return found


def _returns(moves: Sequence[tuple[float, str]]) -> list[float]:
    """When the job came back into the queue from running: once for each attempt that was lost."""
    return [at for (_, old), (at, new) in pairwise(moves) if old == "running" and new == "queued"]


def _cause(attempt: str, back: float, faults: Sequence[Injected]) -> Injected | None:
    """The last fault before the loss that hit this attempt itself; else the last that was injected."""
    before = [one for one in faults if one.injection and one.at <= back]
    own = [one for one in before if one.injection and one.injection.attempt == attempt]
    return next(reversed(own or before), None)


def _measured(
    job: str, moves: Sequence[tuple[float, str]], fault: float, back: float, step: float
) -> Recovery:
    running = max((at for at, new in moves if new == "running" and at < step), default=back)
    queued = 0.0
    for (since, state), (until, _) in pairwise(moves):
        if state == "queued" and since >= back and until <= running:
            queued += until - since
    return Recovery(job, max(0.0, running - fault - queued), queued, max(0.0, step - running))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of all do not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
