"""Waiting for an artifact store that is away, for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from shared.artifacts import StoreUnavailable

PATIENCE_S = 600.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
T = TypeVar("T")


def patiently(step: Callable[[], T], give_up: Callable[[], None], patience_s: float = PATIENCE_S) -> T:
    """Run `step`, again while the store is away, for up to `patience_s`; then StoreUnavailable is raised on.

    `give_up` is called before each try; what it raises ends it.
    """
    until, pause_s = time.monotonic() + patience_s, _FIRST_PAUSE_S
    while True:
        give_up()
        try:
            return step()
        except StoreUnavailable as error:
            if time.monotonic() + pause_s > until:
                raise
            structlog.get_logger(__name__).warning("store_away", error=error.message)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
