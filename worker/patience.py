"""Waiting for an artifact store, or another host, that is away, for a while."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from shared.artifacts import StoreUnavailable
from shared.domain.errors import Unavailable

PATIENCE_S = 600.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
# The fourth try has failed, after 3.5 s: what passes sooner is worth no word.
_TOLD_AT_PAUSE_S = 4.0
T = TypeVar("T")


class HostAway(Unavailable):
    """A host outside of Thaw cannot be reached just now, and may be back soon."""


def patiently(
    step: Callable[[], T],
    give_up: Callable[[], None],
    patience_s: float = PATIENCE_S,
    seconds_left: Callable[[], float] = lambda: math.inf,
    tell: Callable[[str], None] = lambda why: None,
) -> T:
    """Run `step`, again while it raises StoreUnavailable or HostAway, for `patience_s`; then raise that on.

    `give_up` is called before each try; what it raises ends it. `seconds_left` is asked before each pause,
    and none goes beyond it. `tell` is called once, with what is waited for, where it is not there after a few
    tries.
    """
    until, pause_s = time.monotonic() + patience_s, _FIRST_PAUSE_S
    while True:
        give_up()
        try:
            return step()
        except (StoreUnavailable, HostAway) as error:
            if pause_s > min(until - time.monotonic(), seconds_left()):
                raise
            structlog.get_logger(__name__).warning("waits_for_a_host", error=error.message)
            if pause_s == _TOLD_AT_PAUSE_S:
                tell(error.message)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
