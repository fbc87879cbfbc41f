"""The database's clock, by which all leases run; transactions must not freeze it, so not `now()`."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func


def seconds_ago(seconds: float) -> ColumnElement[datetime]:
    """The moment that many seconds before this one."""
    return func.clock_timestamp() - timedelta(seconds=seconds)


def seconds_from_now(seconds: float) -> ColumnElement[datetime]:
    """The moment that many seconds after this one."""
    return func.clock_timestamp() + timedelta(seconds=seconds)
