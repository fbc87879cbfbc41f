"""The lines that show activations being computed."""

from __future__ import annotations

import time

from shared.domain.events import ExtractionLine
from worker.training.pace import LINE_EVERY_S
from worker.training.progress import Progress


class ExtractionPace:
    """Writes how many samples are done, at most once a second, and at the end."""

    def __init__(self, progress: Progress, n_samples: int, n_open: int) -> None:
        self._progress = progress
        self._n_samples = n_samples
        self._n_open = n_open
        self._started = time.monotonic()
        self._last = -LINE_EVERY_S

    def count(self, n_done: int) -> None:
        """So many of the open samples are done now."""
        now = time.monotonic()
        if now - self._last < LINE_EVERY_S and n_done < self._n_open:
            return
        self._last = now
        per_s = n_done / max(1e-9, now - self._started)
        self._progress.write(
            ExtractionLine(
                time=time.time(),
                n_done=self._n_samples - self._n_open + n_done,
                n_samples=self._n_samples,
                samples_per_s=per_s,
                eta_s=(self._n_open - n_done) / per_s if n_done else None,
            )
        )
