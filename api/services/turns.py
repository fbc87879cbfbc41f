"""What a waiting job is told of its turn: its place in the queue, and when it may start."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from sqlalchemy.orm import Session

from api.schemas import AnyJob, EstimatedStart
from shared.db.forecast import Forecast, Turn, forecast
from shared.db.models import Job
from shared.db.past_usage import PastUsage
from shared.domain.job import JobState
from shared.domain.time_left import Span
from shared.settings import Settings

View = TypeVar("View", bound=AnyJob)


# Followers ask for their job every second: where many wait, they share one forecast for so long.
_MANY, _KEPT_S = 500, 3.0


class Turns:
    """The turns of waiting jobs, as one process of the API tells them."""

    def __init__(
        self, settings: Settings, past: PastUsage, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._past, self._clock = settings, past, clock
        self._lock = Lock()
        self._kept: Forecast | None = None
        self._kept_until = 0.0

    def tell(self, session: Session, job: Job, view: View) -> View:
        """The view of one job, with its turn while it waits for slots."""
        if job.state is not JobState.QUEUED:
            return view
        # Under the lock, so that of many who ask at once one makes it.
        with self._lock:
            made = self._kept if self._kept and self._clock() < self._kept_until else None
            turn = made.of(job.id) if made else None
            if made is None or turn is None:
                made = self.now(session)
                self._kept = made if len(made.turns) >= _MANY else None
                self._kept_until = self._clock() + _KEPT_S
                turn = made.of(job.id)
        return with_turn(view, made, turn) if turn else view

    def now(self, session: Session) -> Forecast:
        """Every job's turn as of this moment."""
        return forecast(session, self._past, heard_within_s=self._settings.heard_within_s)


def with_turn(view: View, made: Forecast, turn: Turn) -> View:
    """The view with the turn that the forecast has for its job."""
    start = None if turn.start is None else _moments(turn.start, made.made_at)
    return view.model_copy(update={"queue_position": turn.position, "estimated_start": start})


def _moments(start: Span, made_at: float) -> EstimatedStart:
    return EstimatedStart(
        earliest=int(made_at + start.earliest),
        likely=None if start.likely is None else int(made_at + start.likely),
        latest=None if start.latest is None else int(made_at + start.latest),
    )
