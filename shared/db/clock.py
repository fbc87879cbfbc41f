"""The database's clock, by which all leases run; transactions must not freeze it, so not `now()`."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Float, SQLColumnExpression, cast, func, select
from sqlalchemy.orm import Session


def seconds_ago(seconds: float) -> ColumnElement[datetime]:
    """The moment that many seconds before this statement began.

    One moment for the whole statement: up to one that moves on from row to row, no index can be asked.
    """
    return func.statement_timestamp() - timedelta(seconds=seconds)


def seconds_from_now(seconds: float) -> ColumnElement[datetime]:
    """The moment that many seconds after this one."""
    return func.clock_timestamp() + timedelta(seconds=seconds)


def seconds_since(moment: SQLColumnExpression[datetime | None]) -> ColumnElement[float | None]:
    """How long ago a moment is; NULL for one that has not come."""
    return cast(func.extract("epoch", func.clock_timestamp() - moment), Float)


def now(session: Session) -> datetime:
    """This moment, as the database has it."""
    moment: datetime = session.scalars(select(func.clock_timestamp())).one()
    return moment
