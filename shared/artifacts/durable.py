"""Files that are whole and on disk, or not there: written aside, flushed, renamed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_FOLDER_RACES = 10


@contextmanager
def flushed_file(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file for this user alone, and its path in `folder`; gone at the end unless it was renamed."""
    path = folder / f".{uuid.uuid4().hex}.part"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


def finish(file: BinaryIO) -> None:
    """Have the file's bytes on disk."""
    file.flush()
    os.fsync(file.fileno())


def publish(written: Path, target: Path, *, if_absent: bool) -> None:
    """Give a finished file its name, durably. `if_absent`: a name already taken raises FileExistsError."""
    for attempts_left in reversed(range(_FOLDER_RACES)):
        try:
            make_folder(target.parent)
            if if_absent:
                os.link(written, target)
            else:
                os.replace(written, target)
        except FileNotFoundError:
            # Whoever deletes the last object of a folder removes the folder as well, maybe just now.
            if not attempts_left:
                raise
        else:
            break
    sync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Make the folder and what is missing above it, for this user alone, durably."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        # Path.mkdir(exist_ok=True) looks again and raises when a deleter has just removed what was there.
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in this folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
