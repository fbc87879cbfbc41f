"""Which checkpoints of a job are kept: the newest, the best, and as many as the job allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

KEPT_UNLESS_TOLD = 3


class Stored(Protocol):
    """A whole checkpoint in the store. `is_best`: its epoch was the best so far when it was written."""

    id: str
    is_best: bool


def best_of(newest_first: Sequence[Stored]) -> str | None:
    """The checkpoint of the best epoch: the newest of those that were the best when they were written."""
    return next((one.id for one in newest_first if one.is_best), None)


def superfluous(newest_first: Sequence[Stored], limit: int) -> list[str]:
    """Those that go, so that `limit` stay: the newest and the best in any case, then what is newest.

    With a limit of 1 two stay where the newest is not the best one.
    """
    kept = {one.id for one in newest_first[:1]} | {best_of(newest_first)}
    for one in newest_first:
        if len(kept - {None}) >= limit:
            break
        kept.add(one.id)
    return [one.id for one in newest_first if one.id not in kept]
