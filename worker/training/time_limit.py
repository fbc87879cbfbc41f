"""max_duration_s: how long a job may run, over all its tries."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from shared.domain.run_signs import CLOCK_FILE, RunClock


@dataclass(frozen=True)
class TimeLimit:
    """Counts what earlier tries took, and how long this run has run by its launcher's clock.

    That clock leaves out the time in which the run was held. Where there is no launcher, `ran_before_s` and
    the time since are counted.
    """

    limit_s: float | None
    spent_s: float
    out: Path
    ran_before_s: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    def is_over(self) -> bool:
        return self.limit_s is not None and self.spent_s + self._ran_s() > self.limit_s

    def _ran_s(self) -> float:
        try:
            return RunClock.model_validate_json((self.out / CLOCK_FILE).read_bytes()).ran_s
        except FileNotFoundError:
            return self.ran_before_s + time.monotonic() - self._since
