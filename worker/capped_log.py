"""logs.txt: what the trainer prints, never larger than a cap; its end is what is kept."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self


class CappedLog:
    """A file that is appended to. Grown past `cap` bytes, it keeps the last half of that, and says so."""

    def __init__(self, path: Path, cap: int) -> None:
        self._path = path
        self._cap = cap
        self._file = path.open("ab", buffering=0)
        self._size = path.stat().st_size

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
        self._file.write(data)
        self._size += len(data)
        if self._size > self._cap:
            self._drop_the_beginning()

    def _drop_the_beginning(self) -> None:
        notice = f"[launcher] earlier lines were dropped: this log is capped at {self._cap} bytes\n".encode()
        _, _, kept = end_of(self._path, self._cap // 2).partition(b"\n")
        aside = self._path.with_name(f".{self._path.name}.partial")
        aside.write_bytes(notice + kept)
        os.replace(aside, self._path)
        self._file.close()
        self._file = self._path.open("ab", buffering=0)
        self._size = len(notice) + len(kept)


def end_of(path: Path, most: int) -> bytes:
    """The last `most` bytes of a file; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read()
    except FileNotFoundError:
        return b""
