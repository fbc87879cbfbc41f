"""How long a job stood still: from the fault that ended an attempt to the next attempt's first step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.causes import Loss
from harness.injector import Injected
from harness.testimony import AttemptLog
from harness.workload import Ended, Followed


@dataclass(frozen=True)
class Recovery:
    """Seconds as they were measured: until the job was taken again, and from there to its next step.

    Left out is `waiting`: there was no free slot, or Postgres or the store was away from everybody.
    """

    job: str
    fault: str
    noticing: float
    waiting: float
    starting: float

    @property
    def seconds(self) -> float:
        return self.noticing + self.starting


def recoveries(
    followed: Sequence[Followed],
    ended: Mapping[str, Ended],
    attempts: Sequence[AttemptLog],
    found: Sequence[Loss],
    faults: Sequence[Injected],
) -> list[Recovery]:
    """One for each attempt that a fault has ended and that was followed by one which made a step."""
    steps = {log.attempt: log.first_step for log in attempts}
    heard = {job.id: job for job in followed}
    away = list(_outages(faults))
    measured = []
    for loss in found:
        order = [str(raw["id"]) for raw in ended[loss.job].job.raw["attempts"]]
        later = [steps.get(attempt) for attempt in order[order.index(loss.attempt) + 1 :]]
        step = next((moment for moment in later if moment is not None), None)
        if loss.cause is not None and step is not None:
            measured.append(_measured(heard[loss.job], loss, loss.cause, step, away))
    return measured


def _outages(faults: Sequence[Injected]) -> Iterator[tuple[float, float]]:
    """While nobody could go on: nothing is taken without Postgres, and nothing begun without the store."""
    for one in faults:
        if one.fault.kind.on in ("postgres", "store") and one.injection and one.injection.node is None:
            yield one.at, one.until or one.at


def _measured(
    job: Followed, loss: Loss, cause: Injected, step: float, away: Iterable[tuple[float, float]]
) -> Recovery:
    moves = [(at, str(event.data["new"])) for at, event in job.heard if "new" in event.data]
    running = max((at for at, new in moves if new == "running" and at < step), default=loss.at)
    queued = (
        (since, until)
        for (since, state), (until, _) in pairwise(moves)
        if state == "queued" and since >= loss.at and until <= running
    )
    left_out = [*queued, *away]
    noticing, starting = _outside(cause.at, running, left_out), _outside(running, step, left_out)
    waiting = step - cause.at - noticing - starting
    return Recovery(job.id, cause.fault.kind.name, noticing, waiting, starting)


def _outside(since: float, until: float, left_out: Iterable[tuple[float, float]]) -> float:
    """Seconds from `since` to `until` that lie in none of the spans, which may overlap."""
    seconds, at = 0.0, since
    for begin, end in sorted(left_out):
        seconds += max(0.0, min(begin, until) - at)
        at = max(at, end)
    return seconds + max(0.0, until - at)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of all do not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
