"""Teams as a caller sees them: an admin all of them, everybody else the own one alone."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Select, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.keys import Caller
from shared.db.models import File, Job, Team
from shared.db.own_keys import check_an_admin_stays, revoke_all
from shared.db.paging import Order, Page, by_creation, read_page
from shared.db.scope import storable
from shared.domain.errors import Conflict, NotFound, Unauthenticated
from shared.domain.roles import check_team_name
from shared.ids import new_id


def create_team(session: Session, name: str) -> Team:
    """A new team. Raises Invalid for what is no name, and Conflict for one that is taken."""
    made = insert(Team).values(id=new_id("team"), name=check_team_name(name))
    unless_taken = made.on_conflict_do_nothing(index_elements=["name"], index_where=Team.deleted_at.is_(None))
    team_id = session.scalar(unless_taken.returning(Team.id))
    if team_id is None:
        raise Conflict(f"there is a team {name!r} already", param="name", code="name_taken")
    return session.get_one(Team, team_id)


def list_teams(
    session: Session, caller: Caller, *, after: str | None, limit: int, order: Order
) -> Page[Team]:
    """The teams by age. Raises NotFound on an unknown `after`."""
    last = get_team(session, caller, after) if after is not None else None
    return read_page(session, by_creation(_seen_by(caller), Team, last, order), limit)


def get_team(session: Session, caller: Caller, named: str) -> Team:
    """The team of that id or name. Raises NotFound, for a team that the caller may not see too."""
    query = _seen_by(caller).where(or_(Team.id == storable(named), Team.name == storable(named)))
    team = session.scalars(query).one_or_none()
    if team is None:
        raise NotFound(f"no team {named!r}")
    return team


def names_of(session: Session, team_ids: Collection[str]) -> dict[str, str]:
    """The names of teams by id, of those that were deleted too."""
    rows = session.execute(select(Team.id, Team.name).where(Team.id.in_(team_ids)))
    return {id: name for id, name in rows}  # noqa: C416 - dict() does not accept rows for mypy


def delete_team(session: Session, caller: Caller, named: str) -> Team:
    """Mark a team that owns nothing as deleted, and revoke its keys.

    Raises NotFound, and Conflict where it owns a job or a file, or the last valid key of role admin.
    """
    team = get_team(session, caller, named)
    # Whoever stores a job, a file or a key of the team holds a share of this row: both see each other.
    session.refresh(team, with_for_update=True)
    if team.deleted_at is not None:
        raise NotFound(f"no team {named!r}")
    _check_owns_nothing(session, team)
    check_an_admin_stays(session, without_team=team.id)
    revoke_all(session, team.id)
    team.deleted_at = session.scalar(select(func.clock_timestamp()))
    return team


def check_team_stays(session: Session, team_id: str) -> None:
    """Raises Unauthenticated where the team was deleted while something of it was being stored just now.

    The new row's reference holds the team's row until the commit, so that it cannot be deleted after this.
    """
    if session.scalar(select(Team.deleted_at).where(Team.id == team_id)) is not None:
        raise Unauthenticated("this API key was revoked with its team, which has just been deleted")


def _check_owns_nothing(session: Session, team: Team) -> None:
    for entity, noun in ((Job, "job"), (File, "file")):
        owned = entity.team_id == team.id, entity.deleted_at.is_(None)
        count = session.scalar(select(func.count()).select_from(entity).where(*owned)) or 0
        if count:
            raise Conflict(
                f"team {team.name} still owns {count:,} {noun}{'s' * (count > 1)}; "
                "have one of its keys delete them first",
                code="team_not_empty",
            )


def _seen_by(caller: Caller) -> Select[Team]:
    query = select(Team).where(Team.deleted_at.is_(None))
    return query if caller.role == "admin" else query.where(Team.id == caller.team_id)
