"""What a trainer left in its run's folder, read as a stranger's: plain files, never through links.

The worker may read what trainers under a uid of their own may not: a link must not lend them its eyes, and a
pipe that nobody writes to must not hold it up.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotAPlainFile(Exception):
    """A trainer left a link, or nothing, or something else where a file must be."""


def open_plain(run: Path, name: str) -> BinaryIO:
    """The file `name`, a path relative to the run's folder.

    Raises NotAPlainFile for a link on the way or at its end, a pipe, a folder, or a name that leads out of
    the run; FileNotFoundError where there is nothing.
    """
    *folders, last = PurePosixPath(name).parts
    if PurePosixPath(name).is_absolute() or ".." in (*folders, last):
        raise NotAPlainFile(f"{name!r} leads out of the run's folder")
    try:
        descriptor = _open_below(run, folders, last)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NotAPlainFile(f"{name!r} is no plain file, or lies behind a link: {error.strerror}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise NotAPlainFile(f"{name!r} is no plain file; a run's results are plain files with one name")
    return os.fdopen(descriptor, "rb")


def read_plain(run: Path, name: str) -> bytes:
    """The whole file; raises as `open_plain` does."""
    with open_plain(run, name) as file:
        return file.read()


def end_of(run: Path, name: str, most: int) -> bytes:
    """The last `most` bytes of a file; empty where there is no plain one."""
    try:
        with open_plain(run, name) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read(most)
    except (FileNotFoundError, NotAPlainFile):
        return b""


def _open_below(run: Path, folders: list[str], last: str) -> int:
    at = os.open(run, _FOLDER)
    try:
        for folder in folders:
            below = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.open(last, _FILE, dir_fd=at)
    finally:
        os.close(at)
