"""A rank's own look at its lease: a launcher that is itself stopped holds nobody.

THAW_HOLD_AFTER_S   seconds after which a heartbeat is stale; left out: nobody holds a lease, as on a laptop
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from shared.domain.events import HEARTBEAT_FILE, Heartbeat

HOLD_AFTER = "THAW_HOLD_AFTER_S"
_LOOK_EVERY_S = 1.0
_LOOK_AGAIN_S = 0.1


class LeaseWatch:
    """Keeps this rank from computing while its run's lease is not confirmed."""

    def __init__(self, heartbeat: Path | None = None, hold_after_s: float = math.inf) -> None:
        """Without a file there is no lease to look at."""
        self._heartbeat = heartbeat
        self._hold_after_s = hold_after_s
        self._due = 0.0

    @classmethod
    def of_run(cls, folder: Path, environment: Mapping[str, str]) -> LeaseWatch:
        told = environment.get(HOLD_AFTER)
        return cls(folder / HEARTBEAT_FILE, float(told)) if told else cls()

    def wait(self) -> None:
        """Return once the lease is confirmed; looked at once a second at the most."""
        if self._heartbeat is None or time.monotonic() < self._due:
            return
        while self._is_stale(self._heartbeat):
            time.sleep(_LOOK_AGAIN_S)
        self._due = time.monotonic() + _LOOK_EVERY_S

    def _is_stale(self, heartbeat: Path) -> bool:
        sent = Heartbeat.model_validate_json(heartbeat.read_bytes()).boottime_s
        return time.clock_gettime(time.CLOCK_BOOTTIME) - sent > self._hold_after_s
