"""Keys as a caller sees them: an admin all, an owner those of the team, everybody else the own one alone."""

from __future__ import annotations

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now
from shared.db.keys import Caller, is_valid
from shared.db.models import ApiKey
from shared.db.paging import Order, Page, by_creation, read_page
from shared.db.storable import comparable
from shared.domain.errors import Conflict, NotFound
from shared.domain.roles import check_keeps


def list_keys(
    session: Session, caller: Caller, *, team_id: str | None, after: str | None, limit: int, order: Order
) -> Page[ApiKey]:
    """The keys by age, those of one team where it is given. Raises NotFound on an unknown `after`."""
    last = get_key(session, caller, after) if after is not None else None
    query = _seen_by(caller)
    if team_id is not None:
        query = query.where(ApiKey.team_id == team_id)
    return read_page(session, by_creation(query, ApiKey, last, order), limit)


def get_key(session: Session, caller: Caller, key_id: str) -> ApiKey:
    """The key of that id. Raises NotFound, for a key that the caller may not see too."""
    key = session.scalars(_seen_by(caller).where(ApiKey.id == comparable(key_id))).one_or_none()
    if key is None:
        raise NotFound(f"no key {key_id!r}")
    return key


def revoke_key(session: Session, caller: Caller, key_id: str) -> ApiKey:
    """End a key: no request that begins after the commit is let in with it. Again, it changes nothing.

    Raises NotFound, Forbidden for an admin's key where the caller is none, and Conflict for the last of them.
    """
    key = get_key(session, caller, key_id)
    check_keeps(caller.role, key.role)
    if key.role == "admin":
        check_an_admin_stays(session, without_key=key.id)
    session.refresh(key, with_for_update={"key_share": True})
    if key.revoked_at is None:
        key.revoked_at = now(session)
    return key


def revoke_all(session: Session, team_id: str) -> None:
    """End every key of a team."""
    session.execute(
        update(ApiKey)
        .where(ApiKey.team_id == team_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def check_an_admin_stays(
    session: Session, *, without_key: str | None = None, without_team: str | None = None
) -> None:
    """Raises Conflict where no valid key of role admin would be left without that key, or that team's.

    Locks all of them in their order, so that of two at once the second sees what the first has done.
    """
    query = select(ApiKey).where(ApiKey.role == "admin", is_valid()).order_by(ApiKey.id)
    valid = session.scalars(query.with_for_update(key_share=True)).all()
    going = [key for key in valid if key.id == without_key or key.team_id == without_team]
    if going and len(going) == len(valid):
        raise Conflict(
            f"{going[-1].id} ({going[-1].name}) is the last valid key of role 'admin', and without one "
            "nobody could manage this service; make another first",
            code="last_admin_key",
        )


def _seen_by(caller: Caller) -> Select[ApiKey]:
    query = select(ApiKey)
    if caller.role == "admin":
        return query
    if caller.role == "owner":
        return query.where(ApiKey.team_id == caller.team_id)
    return query.where(ApiKey.id == caller.key_id)
