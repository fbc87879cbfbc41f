"""A disk without room, told from other troubles of a disk."""

from __future__ import annotations

from errno import EDQUOT, ENOSPC


def is_disk_full(error: BaseException) -> bool:
    """Whether there was no room left, on the disk or in what this user may take of it."""
    return isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT)
