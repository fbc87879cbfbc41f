"""How long a run has run: the time that its job is charged with, and in which it must get further."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from shared.domain.run_signs import CLOCK_FILE, RunClock
from worker.run_files import NotAPlainFile, read_plain
from worker.run_folder import write_whole

# Looks come every tenth of a second. A longer gap is a launcher, or a host, that was itself stopped.
_LONGEST_TICK_S = 5.0
_WRITE_EVERY_S = 1.0
# torch is imported before the first sign of life, which a scale of times makes no faster.
START_S = 120.0


@dataclass
class RanClock:
    """Seconds between looks, added up, but for those in which the run was held."""

    started: float
    ran_s: float = 0.0
    _told_s: float = 0.0
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.started

    def tick(self, now: float, *, held: bool) -> None:
        """Time has gone on to `now`, in monotonic seconds."""
        if not held:
            self.ran_s += min(now - self._last, _LONGEST_TICK_S)
        self._last = now

    def tell(self, run: Path) -> bool:
        """Write clock.json where that is due, about once a second; whether it was."""
        if self.ran_s - self._told_s < _WRITE_EVERY_S:
            return False
        self._told_s = self.ran_s
        with suppress(OSError):  # a full disk must not end the run
            write_whole(run / CLOCK_FILE, RunClock(ran_s=self.ran_s).model_dump_json())
        return True


@dataclass
class StallRule:
    """A run whose signs of life stay the same for `stall_s` of running has stalled; None: it never has.

    Before the first sign it is given `start_s` at least.
    """

    stall_s: float | None
    start_s: float = START_S
    _sign: Hashable = ()
    _since_s: float = 0.0

    def is_stalled(self, ran_s: float, sign: Hashable) -> bool:
        """Whether it is so after `ran_s` of running, with the signs as they are now: none is ()."""
        still_s = self.still_s(ran_s, sign)
        if self.stall_s is None:
            return False
        return still_s > (self.stall_s if sign else max(self.stall_s, self.start_s))

    def still_s(self, ran_s: float, sign: Hashable) -> float:
        """For how long the signs have been as they are now."""
        if sign != self._sign:
            self._sign, self._since_s = sign, ran_s
        return ran_s - self._since_s


def read_ran_s(run: Path) -> float:
    """What clock.json says; 0.0 while there is none."""
    try:
        return RunClock.model_validate_json(read_plain(run, CLOCK_FILE)).ran_s
    except (FileNotFoundError, NotAPlainFile, ValidationError):
        return 0.0
