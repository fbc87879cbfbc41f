"""Registered models, as the nodes that have them installed describe them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
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
