"""What a simulation's record says: utilisation, waits, and how far each team is from its fair share.

**Fair share.** Over a window of one half-life, what all teams together held on average is parted by weighted
max-min fairness: a team that was not backlogged all along wanted no more than it held, all others wanted more
than there was; each gets what it wanted, at most a level that is the same for all, times its weight. (The
nominal quotas of these simulations go by weight too, so that they move nobody's part.)

**Share error.** What a team held on average less its fair share, in percentage points of the cluster's GPUs.
It is asked of teams that were backlogged all along, that is had jobs waiting after every pass in the window,
and whose largest job is smaller than their share; first in the second half-life, when there is a past to go
by.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles

from _cluster_events import Clock, Hold, Pass, Record
from _cluster_load import Job

Window = tuple[float, float]


@dataclass(frozen=True)
class Share:
    """Of one team in one window, in percent of the cluster's GPUs."""

    team: str
    window: Window
    held: float
    fair: float

    @property
    def error(self) -> float:
        return self.held - self.fair


def utilisation(record: Record, n_slots: int, until_s: float) -> float:
    """Percent of all GPUs over all the time."""
    return 100 * sum(held_in(record.holds, (0.0, until_s)).values()) / n_slots


def waits(record: Record, jobs: Sequence[Job], until_s: float) -> dict[tuple[int, int], tuple[float, float]]:
    """Nodes and GPUs on each -> p50 and p99 of the seconds from a job's submission until it was placed first.

    A job that was not placed by the end counts with what it has waited until then.
    """
    of_size: dict[tuple[int, int], list[float]] = defaultdict(list)
    for job in jobs:
        placed_at = record.first_placed_at.get(job.id, until_s)
        of_size[job.nodes, job.devices].append(placed_at - job.submitted_at)
    return {size: (median(waited), _p99(waited)) for size, waited in sorted(of_size.items())}


def pass_times(passes: Sequence[Pass]) -> tuple[float, float]:
    """p50 and p99, in milliseconds."""
    taken = [one.took_ms for one in passes]
    return median(taken), _p99(taken)


def placed_of_possible(passes: Iterable[Pass]) -> float:
    """GPUs that the passes placed, in percent of what first-fit-decreasing would have placed in each."""
    passes = list(passes)
    possible = sum(one.could_place for one in passes)
    return 100 * sum(one.placed for one in passes) / possible if possible else 100.0


def shares(
    record: Record, jobs: Sequence[Job], weights: Mapping[str, float], n_slots: int, clock: Clock
) -> list[Share]:
    """Of each team that was backlogged all along one half-life, in every half-life but the first."""
    found = []
    largest = {team: max((job.slots for job in jobs if job.team == team), default=0) for team in weights}
    for window in half_lives(clock)[1:]:
        held = held_in(record.holds, window)
        backlogged = _backlogged(record.passes, window)
        fair = fair_parts({team: held[team] for team in weights}, weights, backlogged)
        found += [
            Share(team, window, 100 * held[team] / n_slots, 100 * fair[team] / n_slots)
            for team in sorted(backlogged)
            if largest[team] < fair[team]
        ]
    return found


def half_lives(clock: Clock) -> list[Window]:
    n_whole = int(clock.until_s // clock.half_life_s)
    return list(pairwise(number * clock.half_life_s for number in range(n_whole + 1)))


def held_in(holds: Iterable[Hold], window: Window) -> Mapping[str, float]:
    """Team -> slots that it held on average; 0 for any other."""
    since, until = window
    held: defaultdict[str, float] = defaultdict(float)
    for hold in holds:
        together_s = min(hold.until, until) - max(hold.since, since)
        if together_s > 0:
            held[hold.team] += hold.slots * together_s / (until - since)
    return held


def fair_parts(
    held: Mapping[str, float], weights: Mapping[str, float], backlogged: Iterable[str]
) -> dict[str, float]:
    """Weighted max-min fairness over what was held in all: each team's part of it."""
    unmet = dict.fromkeys(backlogged)
    wanted = {team: float("inf") if team in unmet else held[team] for team in weights}
    left, weight_left, parts = sum(held.values()), sum(weights.values()), {}
    for team in sorted(weights, key=lambda one: (wanted[one] / weights[one], one)):
        parts[team] = min(wanted[team], left * weights[team] / weight_left)
        left -= parts[team]
        weight_left -= weights[team]
    return parts


def over_time(holds: Iterable[Hold], until_s: float, n_bins: int) -> dict[str, list[float]]:
    """Team -> slots that it held on average in each of so many equal stretches of time."""
    width = until_s / n_bins
    held: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * n_bins)
    for hold in holds:
        line = held[hold.team]
        for at in range(int(hold.since // width), min(n_bins, int(hold.until // width) + 1)):
            together_s = min(hold.until, (at + 1) * width) - max(hold.since, at * width)
            line[at] += hold.slots * max(0.0, together_s) / width
    return dict(held)


def _backlogged(passes: Iterable[Pass], window: Window) -> frozenset[str]:
    since, until = window
    seen = [one.backlogged for one in passes if since <= one.at < until]
    return frozenset.intersection(*seen) if seen else frozenset()


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[98] if len(values) > 1 else values[0]
