"""Which team's figures a caller is told."""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from shared.db.keys import Caller
from shared.db.models import Team
from shared.db.storable import comparable
from shared.domain.errors import NotFound


def team_asked_for(session: Session, caller: Caller, asked: str | None) -> str | None:
    """The id of the team, given by its id or name; left out: the caller's own, or all (None) for an admin.

    Raises NotFound on an unknown one, and alike on another team where the caller is no admin.
    """
    own = None if caller.role == "admin" else caller.team_id
    if asked is None:
        return own
    query = select(Team.id).where(or_(Team.id == comparable(asked), Team.name == comparable(asked)))
    if own is not None:
        query = query.where(Team.id == own)
    # A deleted team is known by its id; its name may be another's by now.
    best_first = query.order_by(Team.id != comparable(asked), Team.deleted_at.is_not(None))
    found = session.scalars(best_first.limit(1)).first()
    if found is None:
        raise NotFound(f"no team {asked!r}", param="team")
    return found
