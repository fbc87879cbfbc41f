"""API keys: made once, stored hashed, looked up by their hash."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.models import ApiKey, Team
from shared.ids import new_id

KEY_PREFIX = "thaw_"
_SHOWN_CHARACTERS = len(KEY_PREFIX) + 6
_RANDOM_BYTES = 32


@dataclass(frozen=True)
class Caller:
    """Who asks: the key's team, role and id."""

    team_id: str
    role: str
    key_id: str


def make_team(session: Session, name: str) -> str:
    """The id of the team of that name, which is made where there is none."""
    made = insert(Team).values(id=new_id("team"), name=name).on_conflict_do_nothing(index_elements=["name"])
    session.execute(made)
    return session.scalars(select(Team.id).where(Team.name == name)).one()


def make_key(session: Session, team_id: str, *, name: str, role: str) -> str:
    """A new key of the team. This is the only time that it can be read."""
    key = KEY_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    session.add(
        ApiKey(
            id=new_id("key"),
            team_id=team_id,
            name=name,
            role=role,
            prefix=key[:_SHOWN_CHARACTERS],
            sha256=_hash(key),
        )
    )
    session.flush()
    return key


def find_caller(session: Session, key: str) -> Caller | None:
    """Whose key this is; None for an unknown or a revoked one."""
    columns = (ApiKey.team_id, ApiKey.role, ApiKey.id)
    row = session.execute(
        select(*columns).where(ApiKey.sha256 == _hash(key), ApiKey.revoked_at.is_(None))
    ).one_or_none()
    return Caller(*row) if row else None


def _hash(key: str) -> str:
    # Plain SHA-256 is enough: the key holds 256 random bits, so there is nothing to guess.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
