"""Waiting in tests: for a condition, with a limit, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_for(look: Callable[[], Found | None], within_s: float, what: str) -> Found:
    """The first answer of `look` that is true; fails when there is none in time."""
    give_up_at = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < give_up_at, f"waited {within_s:g} s in vain for {what}"
        time.sleep(0.05)
    return found
