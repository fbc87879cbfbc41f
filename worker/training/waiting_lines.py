"""A file of lines on a disk that may be full: they wait in memory until there is room."""

from __future__ import annotations

import os
from pathlib import Path

from worker.training.files import unless_disk_full


class WaitingLines:
    """Appends bytes in their order. What the disk has no room for goes with the next: no line is lost.

    A reader may see a line begun, and its rest later.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._waiting = b""

    def write(self, line: bytes) -> None:
        """Raises OSError for any trouble but a full disk."""
        self._waiting += line
        with unless_disk_full():
            while self._waiting:
                self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]

    def close(self) -> None:
        self.write(b"")  # what waits, where the results have made room
        os.close(self._descriptor)
