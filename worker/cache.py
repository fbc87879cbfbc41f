"""Inputs kept on the node: fetched once whoever asks, held while a run uses them, the oldest go first."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_LOOK_AGAIN_S = 0.1
_LOCKS = "locks"
_ENTRIES = "entries"
_INCOMING = "incoming"


class Cache:
    """Entries, files or folders, by a name that says their content. What it gave out stays until it closes.

    `interrupted` is called while it waits for another run that fetches the same; what it raises is raised on.
    """

    def __init__(
        self, folder: Path, max_bytes: int, interrupted: Callable[[], None], reader_gid: int | None = None
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._interrupted = interrupted
        self._in_use = ExitStack()
        for name in (_LOCKS, _ENTRIES, _INCOMING):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._let_in_only(reader_gid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._in_use.close()

    def get(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The entry `name`; where there is none, `fill` makes it at the path that it is given.

        What `fill` raises is raised on, and nothing stays.
        """
        entry = self._folder / _ENTRIES / name
        with ExitStack() as opened:
            lock = opened.enter_context((self._folder / _LOCKS / name).open("a+b"))
            while not self._is_held(lock, entry):
                self._lock(lock, fcntl.LOCK_EX)
                if not entry.exists():
                    self._make(entry, fill)
                    _write_size(lock, entry)
                    self._evict()
            self._in_use.push(opened.pop_all())
        return entry

    def _is_held(self, lock: BinaryIO, entry: Path) -> bool:
        """Whether the entry is there, held shared from now on."""
        self._lock(lock, fcntl.LOCK_SH)
        os.utime(lock.fileno())  # used now: the last to go
        return entry.exists()

    def _lock(self, lock: BinaryIO, kind: int) -> None:
        while True:
            self._interrupted()
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOOK_AGAIN_S)
            else:
                return

    def _make(self, entry: Path, fill: Callable[[Path], None]) -> None:
        aside = self._folder / _INCOMING / f"{uuid.uuid4().hex}-{entry.name}"
        try:
            fill(aside)
            os.replace(aside, entry)
        finally:
            _remove(aside)

    def _evict(self) -> None:
        """Remove what was not used for longest until the rest fits; what any run holds is passed over."""
        locks = sorted((self._folder / _LOCKS).iterdir(), key=lambda path: path.stat().st_mtime)
        sizes = {
            lock.name: _read_size(lock) for lock in locks if (self._folder / _ENTRIES / lock.name).exists()
        }
        too_much = sum(sizes.values()) - self._max_bytes
        for name, size in sizes.items():
            if too_much <= 0:
                return
            if self._remove_unused(name):
                too_much -= size

    def _remove_unused(self, name: str) -> bool:
        with (self._folder / _LOCKS / name).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            entry = self._folder / _ENTRIES / name
            if not entry.exists():  # another run has removed it meanwhile
                return True
            # Renamed first: a removal that is cut short must not leave half an entry behind.
            aside = self._folder / _INCOMING / f"{uuid.uuid4().hex}-{name}"
            os.replace(entry, aside)
            _remove(aside)
            return True

    def _let_in_only(self, reader_gid: int | None) -> None:
        """The worker writes, trainers under another uid read, and nobody else sees anything."""
        if reader_gid is None:
            self._folder.chmod(0o700)
        else:
            os.chown(self._folder, -1, reader_gid)
            self._folder.chmod(0o750)


def _write_size(lock: BinaryIO, entry: Path) -> None:
    files = [entry] if entry.is_file() else [path for path in entry.rglob("*") if path.is_file()]
    lock.truncate(0)
    lock.write(str(sum(path.stat().st_size for path in files)).encode())
    lock.flush()


def _read_size(lock: Path) -> int:
    return int(lock.read_bytes() or b"0")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
