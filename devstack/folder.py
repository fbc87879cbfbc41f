"""The folder of one stack: what lies where, closed to other users, used by one stack at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class FolderInUse(RuntimeError):
    """Another stack runs on the folder."""


class UnusableFolder(RuntimeError):
    """A file is there, or nothing can be written."""


@dataclass(frozen=True)
class DataFolder:
    """The paths of a stack's folder."""

    root: Path

    @classmethod
    def prepare(cls, root: Path) -> DataFolder:
        """Make the folder, closed to other users, where there is none yet. What exists keeps its mode.

        Raises UnusableFolder where none can be made there.
        """
        made = cls(root.absolute())
        for folder in (made.root, made.logs, made.store, made.nodes):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise UnusableFolder(f"--data-dir {root}: no folder can be made there ({error})") from error
        return made

    @property
    def logs(self) -> Path:
        """One log file a part."""
        return self.root / "logs"

    @property
    def store(self) -> Path:
        """The artifact store."""
        return self.root / "store"

    @property
    def nodes(self) -> Path:
        """Cache and scratch of each node, by its name."""
        return self.root / "nodes"

    @property
    def admin_key(self) -> Path:
        """The file that the first admin key is written to."""
        return self.root / "admin-key"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder. Raises FolderInUse when another stack does; the lock ends with its process."""
        with (self.root / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                holder = lock.read().strip() or "unknown"
                raise FolderInUse(
                    f"{self.root} is in use by another `thaw up` (process {holder}):"
                    " stop that one first, or choose another --data-dir"
                ) from error
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield
