"""Single faults whose effect can be told in advance: what to run, and what must be true of it besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.plan import HOST, LOST_S, Fault, Kind
from harness.stage import STEPS_PER_EPOCH, Order, Report

# Of the settings: how long after its last renewal a run is held, in seconds at scale 1.
_HOLD_AFTER_S = 40.0
# The launcher looks ten times a second; this machine may be busy.
_A_MOMENT_S = 2.0

Claim = Callable[[Report], list[str]]


@dataclass(frozen=True)
class Scenario:
    """Jobs, and one fault once `computing` of them have made a step.

    `lives_s` is how long a job computes at least, in seconds at scale 1 (0: a single epoch). `also` says what
    was not as it must be, beside what the checker finds in every run. `may_overlap`: the promise's exception.
    """

    varieties: Sequence[str]
    fault: Kind
    also: Claim
    lives_s: float = 0.0
    computing: int = 1
    may_overlap: bool = False

    def order(self, scale: float, step_s: float) -> Order:
        """The jobs, long enough for a stack of that scale."""
        n_epochs = max(1, round(self.lives_s * scale / step_s / STEPS_PER_EPOCH))
        return Order(self.varieties, n_epochs, self.computing)

    def plan(self) -> list[Fault]:
        return [Fault(1, 0.0, self.fault, 0.0)]


def none_restarted(report: Report) -> list[str]:
    """Each job was computed by one attempt."""
    outcomes = dict(report.attempts)
    return [] if set(outcomes) == {"succeeded"} else [f"attempts ended {outcomes}"]


def held_and_woken(report: Report) -> list[str]:
    """No job was restarted, and each rank stood still while nobody could say that its lease holds."""
    injection = report.injected[0].injection
    assert injection is not None
    least = 0.8 * (injection.for_s - _HOLD_AFTER_S * report.scale)
    still = {rank.pid: _longest_gap(rank.steps) for log in report.logs for rank in log.ranks}
    found = [f"pid {pid} stood still for {gap:.1f} s at most" for pid, gap in still.items() if gap < least]
    return none_restarted(report) + found


def lost_one(report: Report) -> list[str]:
    """The fault cost one attempt of each job that it hit, and no more."""
    lost = report.attempts["lost"]
    return [] if lost == 1 else [f"{lost} attempts were lost; one was hit"]


def wrote_nothing_more(report: Report) -> list[str]:
    """A node that was woken past its lease changed nothing of the job any more."""
    found = lost_one(report)
    for ended in report.ended.values():
        ran = [event for event in ended.events if event.data.get("new") == "running"]
        if len(ran) < 2 or ran[0].raw["actor"] == ran[1].raw["actor"]:
            continue
        stopped, back = ran[0].raw["actor"], ran[1].seq
        late = [event.message for event in ended.events if event.seq > back and event.raw["actor"] == stopped]
        found += [f"{ended.job.id}: {stopped} wrote after it was lost: {message}" for message in late]
    return found


def computed_on_for_a_moment(report: Report) -> list[str]:
    """Of a whole host that was woken past its lease the trainer is dead soon, and nothing was written."""
    found = wrote_nothing_more(report)
    woken = report.injected[0].until
    assert woken is not None
    lost = {
        raw["id"]
        for one in report.ended.values()
        for raw in one.job.raw["attempts"]
        if raw["outcome"] == "lost"
    }
    late = {log.attempt: log.last - woken for log in report.logs if log.attempt in lost}
    return found + [
        f"{attempt} computed on for {seconds:.1f} s"
        for attempt, seconds in late.items()
        if seconds > _A_MOMENT_S
    ]


def _longest_gap(steps: Sequence[tuple[float, int]]) -> float:
    return max((later - earlier for (earlier, _), (later, _) in pairwise(steps)), default=0.0)


_TWO = ("pair", "alone")
SCENARIOS: Mapping[str, Scenario] = {
    "redis-flushed-50-queued": Scenario(("alone",) * 50, Kind("flush", "redis"), none_restarted),
    "postgres-away-90-s": Scenario(
        (*_TWO, "loading"), Kind("restart", "postgres", 90.0), held_and_woken, 80.0, computing=3
    ),
    "worker-stopped-past-its-lease": Scenario(
        _TWO, Kind("stop", "worker", LOST_S), wrote_nothing_more, 80.0, computing=2
    ),
    "host-stopped-past-its-lease": Scenario(
        _TWO, Kind("stop", HOST, LOST_S), computed_on_for_a_moment, 80.0, computing=2, may_overlap=True
    ),
    "same-message-100-times": Scenario(("alone",), Kind("deliver 100 times"), none_restarted, 80.0),
    "no-postgres-for-one-worker": Scenario(
        _TWO, Kind("black-hole one node from", "postgres", LOST_S), wrote_nothing_more, 80.0, computing=2
    ),
    "no-redis-for-one-worker": Scenario(
        _TWO, Kind("black-hole one node from", "redis", LOST_S), none_restarted, 80.0, computing=2
    ),
    "no-store-for-one-worker": Scenario(
        _TWO, Kind("black-hole one node from", "store", LOST_S), none_restarted, 80.0, computing=2
    ),
}
