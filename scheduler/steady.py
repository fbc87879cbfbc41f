"""Whether the database was in sight long enough to say that somebody else was silent."""

from __future__ import annotations


class SteadyView:
    """Counts how long the database was seen without a gap. Times are seconds of its own clock, as leases are.

    After an outage every lease looks overdue, although the workers only could not renew: whoever expires
    leases must first have watched for a whole one. So it is when that clock leaps, as after a host has slept.
    """

    def __init__(self, *, needed_s: float, largest_gap_s: float) -> None:
        self._needed_s = needed_s
        self._largest_gap_s = largest_gap_s
        self._since: float | None = None
        self._last = 0.0

    def seen(self, now: float) -> None:
        """The database answered."""
        if self._since is None or now - self._last > self._largest_gap_s:
            self._since = now
        self._last = now

    def lost(self) -> None:
        """The database did not answer."""
        self._since = None

    def is_steady(self, now: float) -> bool:
        """Whether it has been seen without a gap for as long as needed."""
        return self._since is not None and now - self._since >= self._needed_s
