"""Registered models, as the nodes that have them installed describe them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.models import RegisteredModel
from shared.db.storable import comparable


def registered(session: Session, name: str) -> RegisteredModel | None:
    """The newest description of the model, None where no node has offered it."""
    return session.scalars(
        select(RegisteredModel)
        .where(RegisteredModel.name == comparable(name))
        .order_by(RegisteredModel.described_at.desc())
        .limit(1)
    ).one_or_none()


def all_registered(session: Session) -> list[RegisteredModel]:
    """The newest description of each model, by name."""
    return list(
        session.scalars(
            select(RegisteredModel)
            .ext(distinct_on(RegisteredModel.name))
            .order_by(RegisteredModel.name, RegisteredModel.described_at.desc())
        )
    )


def undescribed(session: Session, models: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of (name, hash) that no node has described yet, or none to the end.

    One that could not be built is asked for again: what was wrong may have been its node, not the model.
    """
    rows = session.execute(select(RegisteredModel.name, RegisteredModel.hash).where(_is_finished()))
    known = {(name, hash) for name, hash in rows}
    return [model for model in models if model not in known]


def store_description(
    session: Session, *, name: str, version: str, hash: str, description: dict[str, Any]
) -> None:
    """Keep what a node found out about a registered model; the first finished description of a hash stays."""
    told = upsert(RegisteredModel).values(name=name, version=version, hash=hash, description=description)
    session.execute(
        told.on_conflict_do_update(
            index_elements=[RegisteredModel.name, RegisteredModel.hash],
            set_={"description": told.excluded.description, "described_at": func.clock_timestamp()},
            where=~_is_finished(),
        )
    )


def _is_finished() -> ColumnElement[bool]:
    """Whether a description tells how the model is built, and was told to the end."""
    told = RegisteredModel.description
    return and_(told.has_key("tree"), ~told.has_key("unfinished"))
