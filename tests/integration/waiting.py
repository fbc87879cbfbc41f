"""Waiting in tests: for a condition, with a limit, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], *, within_s: float = 20.0) -> None:
    """Return as soon as the condition holds; fail when it does not in time."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not so after {within_s:g} s"
        time.sleep(0.05)
