"""How long a team keeps what nobody needs any more: jobs that are over with what they left, and uploads."""

from __future__ import annotations

from dataclasses import dataclass

DAY_S = 24 * 3600.0


@dataclass(frozen=True)
class Kept:
    """A job that is over, or an upload, of a team that keeps such for `keep_days`.

    `idle_for_s`: how long ago it was over or uploaded, or last needed, whichever came later; None: an
    unfinished job needs it, to go on from its result or to read it.
    """

    id: str
    keep_days: int
    idle_for_s: float | None


def is_due(kept: Kept) -> bool:
    """Whether it was kept for as long as its team keeps such."""
    return kept.idle_for_s is not None and kept.idle_for_s >= kept.keep_days * DAY_S
