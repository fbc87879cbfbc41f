"""Pages of rows: `after` is the last object of the page before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import Session

from shared.db.models import ApiKey, File, Job, Team

Row = TypeVar("Row")
Dated = TypeVar("Dated", Job, File, Team, ApiKey)
Order = Literal["asc", "desc"]


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows of a list, and whether more follow."""

    rows: list[Row]
    has_more: bool


def read_page(session: Session, query: Select[Row], limit: int) -> Page[Row]:
    """The first `limit` rows of an ordered query."""
    rows = list(session.scalars(query.limit(limit + 1)))
    return Page(rows[:limit], len(rows) > limit)


def by_creation(
    query: Select[Dated], entity: type[Dated], after: Dated | None, order: Order
) -> Select[Dated]:
    """The query in the order of creation, from behind `after`."""
    key = tuple_(entity.created_at, entity.id)
    if after is not None:
        last = tuple_(after.created_at, after.id)
        query = query.where(key > last if order == "asc" else key < last)
    if order == "asc":
        return query.order_by(entity.created_at, entity.id)
    return query.order_by(entity.created_at.desc(), entity.id.desc())
