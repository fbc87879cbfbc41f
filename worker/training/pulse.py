"""A rank's sign of life, for the launcher: it ends a run in which nothing gets further."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from shared.domain.run_signs import pulse_file

_MOST_OFTEN_S = 1.0


class Pulse:
    """A file that is touched whenever this rank gets further: a batch, a picture looked through."""

    def __init__(self, file: Path | None = None) -> None:
        """Without a file nobody is told."""
        self._file = file
        self._due = 0.0

    @classmethod
    def of_rank(cls, rank: int, folder: Path) -> Pulse:
        file = folder / pulse_file(rank)
        file.touch()
        return cls(file)

    def beat(self) -> None:
        """This rank got further; told at most once a second. Several threads may call it."""
        now = time.monotonic()
        if self._file is None or now < self._due:
            return
        self._due = now + _MOST_OFTEN_S
        with suppress(OSError):
            os.utime(self._file)
