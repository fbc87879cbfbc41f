"""Removing rows by the batch: found first, and removed where they lie."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, any_, delete, func, literal_column, select
from sqlalchemy.orm import Session

from shared.db.base import Base


def among(query: Select[Any]) -> ColumnElement[Any]:
    """To compare with: `column == among(query)`, what `column.in_(query)` means.

    The query comes first, and each row that it finds is looked up by itself. For `in` the planner may read a
    whole table instead: of a statement that it keeps the plan of it knows neither the limit nor the values.
    """
    return any_(func.array(query.scalar_subquery()))


def remove_some(
    session: Session, table: type[Base], *where: ColumnElement[bool], order_by: Any = None, limit: int
) -> int:
    """Remove at most so many of the rows, and none that somebody holds; how many."""
    place: ColumnElement[Any] = literal_column(f"{table.__tablename__}.ctid")
    some = select(place).select_from(table).where(*where).order_by(order_by).limit(limit)
    found = among(some.with_for_update(skip_locked=True))
    removed = delete(table).where(place == found).returning(literal_column("1", Integer))
    return len(session.scalars(removed.execution_options(synchronize_session=False)).all())
