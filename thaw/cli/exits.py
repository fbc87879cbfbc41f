"""The exit codes, which scripts rely on."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1  # the job failed, or was cancelled while it was watched
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
