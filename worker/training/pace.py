"""The lines that show training go by."""

from __future__ import annotations

import time

from shared.domain.events import TrainLine
from worker.training.progress import Progress
from worker.training.state import RunState
from worker.training.stop import Sums

LINE_EVERY_S = 1.0


class Pace:
    """Averages between two lines, and the time that is left."""

    def __init__(
        self, progress: Progress, figures: tuple[str, ...], n_epochs: int, total_steps: int, first_step: int
    ) -> None:
        self._progress = progress
        self._main_metric = figures[0] if figures else None
        self._n_epochs = n_epochs
        self._total_steps = total_steps
        self._first_step = first_step
        self._started = self._last = time.monotonic()
        self._sums = Sums()

    def start(self) -> None:
        """Training starts now."""
        self._started = self._last = time.monotonic()

    def count(self, sums: Sums, state: RunState, learning_rate: float, *, ends_epoch: bool) -> None:
        """Adds what was trained on, and writes a line at most once a second, and at the end of an epoch."""
        self._sums.add(sums)
        now = time.monotonic()
        if self._sums.n == 0 or not (ends_epoch or now - self._last >= LINE_EVERY_S):
            return
        self._progress.write(
            TrainLine(
                time=time.time(),
                epoch=state.epoch,
                n_epochs=self._n_epochs,
                step=state.step,
                total_steps=self._total_steps,
                loss=self._sums.mean_loss,
                accuracy=self._sums.means.get("accuracy"),
                metrics=self._sums.means,
                main_metric=self._main_metric,
                learning_rate=learning_rate,
                samples_per_s=self._sums.n / max(1e-9, now - self._last),
                eta_s=self._time_left(now, state.step),
            )
        )
        self._last, self._sums = now, Sums()

    def _time_left(self, now: float, step: int) -> float | None:
        done = step - self._first_step
        return (now - self._started) / done * (self._total_steps - step) if done else None
