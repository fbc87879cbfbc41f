"""API keys: made once, stored hashed, looked up by their hash."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.clock import seconds_ago, seconds_from_now
from shared.db.models import ApiKey, Team
from shared.ids import new_id

KEY_PREFIX = "thaw_"
_SHOWN_CHARACTERS = len(KEY_PREFIX) + 6
_RANDOM_BYTES = 32
_NOTED_EVERY_S = 60.0


@dataclass(frozen=True)
class Caller:
    """Who asks: the key's team, role and id."""

    team_id: str
    role: str
    key_id: str

    @property
    def actor(self) -> str:
        """As events and rows tell who did something."""
        return f"api:{self.key_id}"


@dataclass(frozen=True)
class FoundKey:
    """A key that there is or was.

    `ended` says how it has ended: "was revoked", "has expired"; None: it is good. `to_note`: its last use was
    noted so long ago that this one should be.
    """

    caller: Caller
    ended: str | None
    to_note: bool


def make_team(session: Session, name: str) -> str:
    """The id of the team of that name, which is made where there is none."""
    made = insert(Team).values(id=new_id("team"), name=name)
    session.execute(
        made.on_conflict_do_nothing(index_elements=["name"], index_where=Team.deleted_at.is_(None))
    )
    return session.scalars(select(Team.id).where(Team.name == name, Team.deleted_at.is_(None))).one()


def make_key(session: Session, team_id: str, *, name: str, role: str) -> str:
    """A new key of the team that lasts until it is revoked. This is the only time that it can be read."""
    return add_key(session, team_id, name=name, role=role)[1]


def add_key(
    session: Session, team_id: str, *, name: str, role: str, expires_in_s: float | None = None
) -> tuple[ApiKey, str]:
    """The row of a new key, and the key itself."""
    key = KEY_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    row = ApiKey(
        id=new_id("key"),
        team_id=team_id,
        name=name,
        role=role,
        prefix=key[:_SHOWN_CHARACTERS],
        sha256=_hash(key),
        expires_at=None if expires_in_s is None else seconds_from_now(expires_in_s),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row, key


def find_key(session: Session, key: str) -> FoundKey | None:
    """Whose key this is or was; None for an unknown one."""
    ended = case((ApiKey.revoked_at.is_not(None), "was revoked"), (~is_valid(), "has expired"))
    columns = (ApiKey.team_id, ApiKey.role, ApiKey.id, ended, _is_to_note())
    row = session.execute(select(*columns).where(ApiKey.sha256 == _hash(key))).one_or_none()
    return FoundKey(Caller(*row[:3]), row[3], row[4]) if row else None


def find_caller(session: Session, key: str) -> Caller | None:
    """Whose key this is; None for one that is unknown, has expired or was revoked."""
    found = find_key(session, key)
    return found.caller if found and found.ended is None else None


def is_valid() -> ColumnElement[bool]:
    """Whether a key is good at this moment, by the database's clock."""
    lasts = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.clock_timestamp())
    return ApiKey.revoked_at.is_(None) & lasts


def valid_among(session: Session, key_ids: Collection[str]) -> set[str]:
    """Those of the keys that are good at this moment."""
    if not key_ids:
        return set()
    return set(session.scalars(select(ApiKey.id).where(ApiKey.id.in_(key_ids), is_valid())))


def note_use(session: Session, key_ids: Collection[str]) -> None:
    """Write down that these keys are in use, unless that was done within the minute. Waits for no lock."""
    due = (
        select(ApiKey.id)
        .where(ApiKey.id.in_(key_ids), _is_to_note())
        .with_for_update(skip_locked=True, key_share=True)
    )
    session.execute(
        update(ApiKey)
        .where(ApiKey.id.in_(due))
        .values(last_used_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def has_ended(key: ApiKey, now: datetime) -> str | None:
    """How a key that was read has ended by `now`: "revoked" or "expired"; None: it is good."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else None


def _is_to_note() -> ColumnElement[bool]:
    return func.coalesce(ApiKey.last_used_at < seconds_ago(_NOTED_EVERY_S), True)


def _hash(key: str) -> str:
    # Plain SHA-256 is enough: the key holds 256 random bits, so there is nothing to guess.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
