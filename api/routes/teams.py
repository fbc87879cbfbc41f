"""/v1/teams: who shares this service. An admin sees all of them, everybody else the own one alone."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from api.deps import CallerDep, OperatorDep, SessionDep
from api.errors import documented
from api.query import After, Limit
from api.schemas import Deleted, ListOf
from api.team_schemas import NewTeam, TeamView
from api.team_views import team_view
from api.views import page_of
from shared.db import teams

router = APIRouter(prefix="/v1/teams", tags=["teams and keys"])


@router.post("", responses=documented(403, 409, 422))
def create(asked: NewTeam, session: SessionDep, caller: OperatorDep) -> TeamView:
    """For admins: a new team. Its name stays as it is, as people and scripts call it by that."""
    return team_view(teams.create_team(session, asked.name))


@router.get("", responses=documented(404, 422))
def list_all(
    session: SessionDep,
    caller: CallerDep,
    after: After = None,
    limit: Limit = 100,
    order: Literal["asc", "desc"] = "desc",
) -> ListOf[TeamView]:
    """The teams, the newest first: all for an admin, else the caller's own."""
    return page_of(teams.list_teams(session, caller, after=after, limit=limit, order=order), team_view)


@router.get("/{team}", responses=documented(404))
def get_one(team: str, session: SessionDep, caller: CallerDep) -> TeamView:
    """One team, by its id or its name."""
    return team_view(teams.get_team(session, caller, team))


@router.delete("/{team}", responses=documented(403, 404, 409))
def delete(team: str, session: SessionDep, caller: OperatorDep) -> Deleted:
    """For admins: delete a team that owns no jobs and no files any more. Its keys end with it."""
    return Deleted(id=teams.delete_team(session, caller, team).id, object="team")
