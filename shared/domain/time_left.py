"""How long a job still holds its slots, from what it told of itself: a guess with its bounds, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A pace measured so far is off by this much in most runs: a later phase may train more, or less.
_AT_BEST, _AT_WORST = 0.75, 1.5
# From the last step to free slots: the last validation, saving, and the upload.
_ENDING_S, _ENDS_WITHIN_S = 10.0, 120.0
# A worker reads a stop with its next renewal, then its ranks write a checkpoint.
_LEAVING_S = 20.0


@dataclass(frozen=True)
class Span:
    """Seconds: the least that it may take, what is likely, and the most. None: nobody can say.

    `earliest` <= `likely` <= `latest`, where they are known.
    """

    earliest: float
    likely: float | None
    latest: float | None


NOW = Span(0.0, 0.0, 0.0)
UNKNOWN = Span(0.0, None, None)


@dataclass(frozen=True)
class Told:
    """What is known of a job's run.

    `steps_left_s`: how long what is left to do takes at the pace that the run measured when it had done
    `done` of `total`, and `age_s` ago; None before it has a pace. `may_run_s`: what max_duration_s leaves.
    """

    steps_left_s: float | None
    age_s: float
    may_run_s: float | None

    @classmethod
    def read(
        cls, progress: Mapping[str, Any] | None, *, now: float, ran_s: float, max_duration_s: float | None
    ) -> Told:
        """From the job's progress: its newest line of training or of extracting. `now` in Unix seconds."""
        told = progress or {}
        line = told.get("extraction") or told.get("train") or {}
        may_run_s = None if max_duration_s is None else max(0.0, max_duration_s - ran_s)
        return cls(line.get("eta_s"), max(0.0, now - line.get("time", now)), may_run_s)


def running(told: Told) -> Span:
    """How long a job that runs still holds its slots."""
    bound = None if told.may_run_s is None else told.may_run_s + _ENDS_WITHIN_S
    if told.steps_left_s is None:
        return Span(0.0, None, bound)
    left = max(0.0, told.steps_left_s - told.age_s)
    latest = _within(left * _AT_WORST + _ENDS_WITHIN_S, bound)
    return Span(_within(left * _AT_BEST, bound), _within(left + _ENDING_S, bound), latest)


def leaving(grace_s: float) -> Span:
    """How long a job that was asked to stop, and is given `grace_s` for it, still holds its slots."""
    return Span(0.0, min(_LEAVING_S, grace_s), grace_s + _ENDS_WITHIN_S)


def once_started(told: Told) -> Span:
    """How long a job that waits will hold slots, once it has some; it may fail at once.

    One that ran before goes on from where it was, at the pace that it had.
    """
    bound = None if told.may_run_s is None else told.may_run_s + _ENDS_WITHIN_S
    if told.steps_left_s is None:
        return Span(0.0, None, bound)
    latest = _within(told.steps_left_s * _AT_WORST + _ENDS_WITHIN_S, bound)
    return Span(0.0, _within(told.steps_left_s + _ENDING_S, bound), latest)


def _within(seconds: float, bound: float | None) -> float:
    return seconds if bound is None else min(seconds, bound)
