"""When ranks must stand still: the rule of the heartbeat, as decisions over times that are handed in."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto


class Order(Enum):
    """What the ranks must do now."""

    RUN = auto()
    HOLD = auto()
    DIE = auto()


@dataclass
class HoldRule:
    """A heartbeat older than `hold_after_s` holds the ranks; held for `kill_after_held_s`, they die.

    All times are seconds of CLOCK_BOOTTIME, which goes on while the host sleeps.
    """

    hold_after_s: float
    kill_after_held_s: float
    _held_since: float | None = field(default=None, init=False)

    def decide(self, now: float, heartbeat: float) -> Order:
        """What holds at `now`, when the last confirmed renewal was sent at `heartbeat`."""
        if now - heartbeat <= self.hold_after_s:
            self._held_since = None
            return Order.RUN
        if self._held_since is None:
            self._held_since = now
        return Order.DIE if now - self._held_since > self.kill_after_held_s else Order.HOLD
