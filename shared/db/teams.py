"""Teams as a caller sees them: an admin all of them, everybody else the own one alone."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Select, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.keys import Caller
from shared.db.models import Team
from shared.db.paging import Order, Page, by_creation, read_page
from shared.db.storable import comparable
from shared.domain.errors import Conflict, NotFound, Unauthenticated
from shared.domain.roles import check_team_name
from shared.domain.team_deletion import check_not_going
from shared.ids import new_id


def create_team(session: Session, name: str) -> Team:
    """A new team. Raises Invalid for what is no name, and Conflict for one that is taken."""
    made = insert(Team).values(id=new_id("team"), name=check_team_name(name))
    unless_taken = made.on_conflict_do_nothing(index_elements=["name"], index_where=Team.deleted_at.is_(None))
    team_id = session.scalar(unless_taken.returning(Team.id))
    if team_id is None:
        raise Conflict(
            f"there is a team {name!r} already{_until(session, name)}", param="name", code="name_taken"
        )
    return session.get_one(Team, team_id)


def _until(session: Session, name: str) -> str:
    """Where the name is about to be free, that it is."""
    has_name = Team.name == name, Team.deleted_at.is_(None), Team.deletion_asked_at.is_not(None)
    going = session.scalar(select(Team.id).where(*has_name))
    return f" ({going}), which is being deleted: the name is free once it is gone" if going else ""


def list_teams(
    session: Session, caller: Caller, *, after: str | None, limit: int, order: Order
) -> Page[Team]:
    """The teams by age. Raises NotFound on an unknown `after`."""
    last = get_team(session, caller, after) if after is not None else None
    return read_page(session, by_creation(_seen_by(caller), Team, last, order), limit)


def get_team(session: Session, caller: Caller, named: str) -> Team:
    """The team of that id or name. Raises NotFound, for a team that the caller may not see too."""
    query = _seen_by(caller).where(or_(Team.id == comparable(named), Team.name == comparable(named)))
    team = session.scalars(query).one_or_none()
    if team is None:
        raise NotFound(f"no team {named!r}")
    return team


def names_of(session: Session, team_ids: Collection[str]) -> dict[str, str]:
    """The names of teams by id, of those that were deleted too."""
    rows = session.execute(select(Team.id, Team.name).where(Team.id.in_(team_ids)))
    return {id: name for id, name in rows}  # noqa: C416 - dict() does not accept rows for mypy


def check_team_stays(session: Session, team_id: str) -> None:
    """Raises Unauthenticated where its team is to go while a key of it is storing something.

    The new row's reference holds the team's row until the commit, so that this cannot be asked for after it.
    """
    if _is_going(session, team_id):
        raise Unauthenticated("this API key was revoked with its team, which is being deleted")


def check_team_takes(session: Session, team: Team) -> None:
    """Raises Conflict where somebody else adds to a team that is to go.

    Whoever asks after having stored a row of the team holds it until the commit, as above.
    """
    check_not_going(team.name, is_going=_is_going(session, team.id))


def _is_going(session: Session, team_id: str) -> bool:
    return session.scalar(select(Team.deletion_asked_at).where(Team.id == team_id)) is not None


def _seen_by(caller: Caller) -> Select[Team]:
    query = select(Team).where(Team.deleted_at.is_(None))
    return query if caller.role == "admin" else query.where(Team.id == caller.team_id)
