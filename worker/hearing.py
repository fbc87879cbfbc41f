"""When a worker is deaf to its queue: the rule over offers that wait, as decisions over times handed in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto


class Remedy(Enum):
    """What must be done now for the worker to hear its queue."""

    NONE = auto()
    RECONNECT = auto()
    BEGIN_ANEW = auto()


@dataclass
class HearingRule:
    """Offers that wait for `patience_s` while no task arrives: the connection is made anew.

    Where messages still lie in the queue as long after the new connection stands, for which `reconnect_s` is
    allowed, that did not help: the process must begin anew. Without any message there the worker is not deaf;
    nobody could send it one. Times are monotonic seconds.
    """

    patience_s: float
    reconnect_s: float
    _heard_at: float = field(default=-math.inf, init=False)
    _reconnected_at: float | None = field(default=None, init=False)
    _deaf: bool = field(default=False, init=False)

    @property
    def is_deaf(self) -> bool:
        """Whether a new connection did not help: this worker must get no more offers."""
        return self._deaf

    def heard(self, now: float) -> None:
        """A task has arrived."""
        self._heard_at = now

    def decide(self, now: float, *, offers_wait: bool, messages_lie: bool) -> Remedy:
        """What to do at `now`, when offers have waited for `patience_s`, or messages lie in the queue."""
        if self._reconnected_at is None:
            if not offers_wait or now - self._heard_at < self.patience_s:
                return Remedy.NONE
            self._reconnected_at = now
            return Remedy.RECONNECT
        unheard = self._heard_at < self._reconnected_at
        if unheard and now - self._reconnected_at < self.reconnect_s + self.patience_s:
            return Remedy.NONE
        self._deaf = messages_lie and unheard
        if self._deaf:
            return Remedy.BEGIN_ANEW
        self._reconnected_at = None
        return Remedy.NONE
