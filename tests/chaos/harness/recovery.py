"""How long a job stood still: from the fault that ended an attempt to the next attempt's first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.causes import Loss
from harness.testimony import AttemptLog
from harness.workload import Ended, Followed


@dataclass(frozen=True)
class Recovery:
    """Seconds as they were measured: until the job was taken again, and from there to its next step.

    Left out is `queued`, the time in which the job waited for a free slot.
    """

    job: str
    fault: str
    noticing: float
    queued: float
    starting: float

    @property
    def seconds(self) -> float:
        return self.noticing + self.starting


def recoveries(
    followed: Sequence[Followed],
    ended: Mapping[str, Ended],
    attempts: Sequence[AttemptLog],
    found: Sequence[Loss],
) -> list[Recovery]:
    """One for each attempt that a fault has ended and that was followed by one which made a step."""
    steps = {log.attempt: log.first_step for log in attempts}
    heard = {job.id: job for job in followed}
    measured = []
    for loss in found:
        order = [str(raw["id"]) for raw in ended[loss.job].job.raw["attempts"]]
        later = [steps.get(attempt) for attempt in order[order.index(loss.attempt) + 1 :]]
        step = next((moment for moment in later if moment is not None), None)
        if loss.cause is not None and step is not None:
            measured.append(_measured(heard[loss.job], loss, loss.cause.fault.kind.name, loss.cause.at, step))
    return measured


def _measured(job: Followed, loss: Loss, name: str, fault: float, step: float) -> Recovery:
    moves = [(at, str(event.data["new"])) for at, event in job.heard if "new" in event.data]
    running = max((at for at, new in moves if new == "running" and at < step), default=loss.at)
    queued = sum(
        until - since
        for (since, state), (until, _) in pairwise(moves)
        if state == "queued" and since >= loss.at and until <= running
    )
    return Recovery(job.id, name, max(0.0, running - fault - queued), queued, max(0.0, step - running))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of all do not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
