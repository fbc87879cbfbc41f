"""logs.txt: what the trainer prints, never larger than a cap; its end is what is kept."""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self


class CappedLog:
    """A file that is appended to. Grown past `cap` bytes, it keeps the last half of that, and says so."""

    def __init__(self, path: Path, cap: int) -> None:
        self._path = path
        self._cap = cap
        self._file = _open(path)
        self._size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._file.close()

    def say(self, message: str) -> None:
        """A line of the launcher's own."""
        self.append(f"[launcher] {message}\n".encode())

    def append(self, data: bytes) -> None:
        # On a full disk lines are lost: the run is not, and says itself what it could not write.
        with suppress(OSError):
            self._size += self._file.write(data)
            if self._size > self._cap:
                self._drop_the_beginning()

    def _drop_the_beginning(self) -> None:
        notice = f"[launcher] earlier lines were dropped: this log is capped at {self._cap} bytes\n".encode()
        half = self._cap // 2
        _, _, kept = os.pread(self._file.fileno(), half, self._size - half).partition(b"\n")
        aside = self._path.with_name(f".{self._path.name}.partial")
        aside.unlink(missing_ok=True)
        file = _open(aside, os.O_EXCL)
        file.write(notice + kept)
        os.replace(aside, self._path)
        self._file.close()
        self._file = file
        self._size = len(notice) + len(kept)


def _open(path: Path, more: int = 0) -> FileIO:
    """To append. The trainer owns the folder: a name is opened once, and never when it has become a link."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | more
    return FileIO(os.open(path, flags, 0o644), "a+b")
