"""/v1/teams: who shares this service. An admin sees all of them, everybody else the own one alone."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from api.audit_trail import AuditedRoute
from api.deps import CallerDep, OperatorDep, SessionDep
from api.errors import documented
from api.query import After, Limit
from api.schemas import ListOf
from api.team_schemas import DeletedTeam, NewTeam, OneTeamView, TeamView
from api.team_views import one_team_view, team_view
from api.views import page_of
from shared.db import team_deletion, teams

router = APIRouter(prefix="/v1/teams", tags=["teams and keys"], route_class=AuditedRoute)


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
def get_one(team: str, session: SessionDep, caller: CallerDep) -> OneTeamView:
    """One team, by its id or its name."""
    found = teams.get_team(session, caller, team)
    return one_team_view(found, unfinished_jobs=team_deletion.unfinished_jobs(session, found.id))


@router.delete("/{team}", responses=documented(403, 404, 409, 422))
def delete(
    team: str,
    session: SessionDep,
    caller: OperatorDep,
    confirm: Annotated[
        str | None, Query(max_length=200, description="the team's name again, where it owns jobs or files")
    ] = None,
) -> DeletedTeam:
    """For admins: delete a team, its keys, and with its name given again all that it owns.

    Its keys end at once and its jobs are cancelled; it is gone once these are over. Asking again meanwhile
    changes nothing.
    """
    going = team_deletion.delete_team(session, caller, team, confirm=confirm)
    return DeletedTeam(id=going.id, deleted=going.deleted_at is not None)
