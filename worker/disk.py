"""A full disk, noticed and told in words. Imports no torch."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_WORDS = {
    errno.ENOSPC: ("ENOSPC", "No space left on device"),
    errno.EDQUOT: ("EDQUOT", "Disk quota exceeded"),
}


def full_disk_in_words(error: BaseException, folder: Path) -> str | None:
    """What a write below `folder` met, with the bytes that are free there; None: not a full disk.

    Libraries, and processes that pass errors on, keep no more than the text of one.
    """
    code = error.errno if isinstance(error, OSError) else None
    for number, (name, text) in _WORDS.items():
        if code == number or text in str(error):
            return f"{text} ({name}) while {_writing(error, folder)}; {_free(folder)}"
    return None


def _writing(error: BaseException, folder: Path) -> str:
    path = getattr(error, "filename", None)
    if not isinstance(path, str | Path):
        return "writing"
    inside = Path(path)
    return f"writing {inside.relative_to(folder) if inside.is_relative_to(folder) else inside.name}"


def _free(folder: Path) -> str:
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return f"how much is free in {folder} cannot be told: {error.strerror}"
    return f"{found.f_bavail * found.f_frsize:,} bytes are free in {folder} now"
