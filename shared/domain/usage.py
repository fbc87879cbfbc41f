"""What was held, and by whom: the words in which usage is asked for and told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from shared.domain.errors import Invalid

DEFAULT_DAYS = 30
MOST_DAYS = 400


class Group(StrEnum):
    """By what usage is told apart. Accelerators always are: an hour of one is no hour of another."""

    TEAM = "team"
    PERSON = "person"
    """The API key that submitted the job."""
    MODEL = "model"
    DAY = "day"
    """Of UTC. What was held over midnight is parted there."""


@dataclass(frozen=True)
class Window:
    """From `start` up to, not including, `end`; both in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Named:
    """Something with an id and the name that people call it by."""

    id: str
    name: str


@dataclass(frozen=True)
class Used:
    """What one group held. A field that was not grouped by is None.

    Slot-seconds are exact to the microsecond: slots, each times the seconds for which it was held.
    """

    accelerator: str
    slot_seconds: Decimal
    wasted_slot_seconds: Decimal
    n_jobs: int
    n_attempts: int
    team: Named | None = None
    person: Named | None = None
    model: str | None = None
    day: str | None = None


def window(start: int | None, end: int | None, groups: Sequence[Group], now: datetime) -> Window:
    """What is asked for, in Unix seconds. Left out: up to now, from the midnight that makes it 30 days.

    Raises Invalid for a window without length, and for days that are too many to be told one by one.
    """
    until = now if end is None else datetime.fromtimestamp(end, UTC)
    begin = _midnight(until) - timedelta(days=DEFAULT_DAYS - 1)
    since = begin if start is None else datetime.fromtimestamp(start, UTC)
    if since >= until:
        raise Invalid(
            f"must be before the end, {int(until.timestamp())} ({until:%Y-%m-%d %H:%M:%S} UTC)", param="start"
        )
    if Group.DAY in groups and until - since > timedelta(days=MOST_DAYS):
        raise Invalid(
            f"by day at most {MOST_DAYS} days are told; from here to the end there are "
            f"{(until - since).days}: ask for less, or do not group by day",
            param="start",
        )
    return Window(since, until)


def check_groups(groups: Sequence[Group]) -> None:
    """Raises Invalid where one is named twice."""
    twice = next((group for group in groups if groups.count(group) > 1), None)
    if twice is not None:
        raise Invalid(f"{twice.value!r} is given twice", param="group_by")


def _midnight(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
