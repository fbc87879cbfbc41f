"""Which fault ended an attempt: its recovery is measured from there, and a loss without a fault is found."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from harness.injector import Injected
from harness.plan import LEVELS, SERVICES, SHORT_S, Kind
from harness.workload import Ended, Followed

# What a fault brings about may show so much later, at default lease times: a lease, and a look at the leases.
_LATE_S = 75.0
# On this machine, whatever the lease times: processes that end, are looked at, and are started.
_SLACK_S = 10.0


@dataclass(frozen=True)
class Loss:
    """An attempt that was lost: where it ran, and when its job was queued again (boot time, seconds)."""

    job: str
    attempt: str
    nodes: tuple[str, ...]
    at: float
    cause: Injected | None


def losses(
    followed: Sequence[Followed], ended: dict[str, Ended], faults: Sequence[Injected], scale: float
) -> list[Loss]:
    """Every attempt that was lost, each with the fault that most likely did it."""
    return [loss for job in followed for loss in _of_job(job, ended[job.id], faults, scale)]


def unexplained(found: Sequence[Loss]) -> list[str]:
    """Attempts that were lost although no fault had touched them."""
    return [
        f"{loss.job}: {loss.attempt} on {' and '.join(loss.nodes)} was lost, and nothing was done to it"
        for loss in found
        if loss.cause is None
    ]


def _of_job(job: Followed, one: Ended, faults: Sequence[Injected], scale: float) -> Iterator[Loss]:
    returns = _returns(job)
    for number, raw in enumerate(one.job.raw["attempts"], start=1):
        if raw["outcome"] == "lost" and number in returns:
            nodes = tuple(str(share["node"]) for share in raw["nodes"])
            cause = _cause(str(raw["id"]), nodes, returns[number], faults, scale)
            yield Loss(job.id, str(raw["id"]), nodes, returns[number], cause)


def _returns(job: Followed) -> dict[int, float]:
    """By the number of the try: when the job came back from where it had run.

    Also when it was leaving already, as it had been asked to hand its slots back.
    """
    number, has_run, returns = 0, False, {}
    for at, event in job.heard:
        new = event.data.get("new")
        if new == "dispatched":
            number, has_run = number + 1, False
        elif new == "running":
            has_run = True
        elif new == "queued" and has_run:
            returns[number] = at
    return returns


def _cause(
    attempt: str, nodes: Collection[str], at: float, faults: Sequence[Injected], scale: float
) -> Injected | None:
    """The last before the loss that could have done it; where there is none, the last that touched it."""
    touching = [one for one in faults if _touches(one, attempt, nodes, at, scale)]
    able = [one for one in touching if _can_end(one.fault.kind)]
    return next(reversed(able or touching), None)


def _touches(one: Injected, attempt: str, nodes: Collection[str], at: float, scale: float) -> bool:
    injection = one.injection
    if injection is None or not one.at <= at <= (one.until or one.at) + _LATE_S * scale + _SLACK_S:
        return False
    if injection.attempt is not None:
        return injection.attempt == attempt
    if injection.node is not None:
        return injection.node in nodes
    return one.fault.kind.on not in SERVICES


def _can_end(kind: Kind) -> bool:
    """Whether a fault of this kind ends the attempt that it hits, as far as can be told."""
    if kind.what in ("kill", "fill disk"):
        return kind.on in ("", *LEVELS)
    return kind.for_s > SHORT_S and (kind.on in LEVELS or kind.on == "postgres")
