"""/v1/teams/TEAM/quota: what a team is owed and what its jobs may ask for."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.audit_trail import AuditedRoute
from api.deps import CallerDep, OperatorDep, PartsDep, SessionDep
from api.errors import documented
from api.quota_schemas import QuotaView, TeamQuotaView
from shared.db import quotas
from shared.db.models import Team
from shared.db.past_usage import PastUsage
from shared.db.teams import check_team_takes, get_team
from shared.domain.team_limits import TermsSpec

router = APIRouter(prefix="/v1/teams", tags=["teams and keys"], route_class=AuditedRoute)


@router.get("/{team}/quota", responses=documented(404))
def get_one(team: str, session: SessionDep, caller: CallerDep, parts: PartsDep) -> TeamQuotaView:
    """A team's quotas, weight and limits, and what it holds of them. Admins see every team's."""
    return _shown(session, parts.past, get_team(session, caller, team))


@router.put("/{team}/quota", responses=documented(403, 404, 409, 422))
def replace(
    team: str, asked: TermsSpec, session: SessionDep, caller: OperatorDep, parts: PartsDep
) -> TeamQuotaView:
    """For admins: set a team's quotas, weight and limits, in place of all that was set before.

    It holds from the next scheduling pass and the next submission on. Jobs that wait or run stay.
    """
    found = get_team(session, caller, team)
    quotas.lock_team(session, found.id)
    check_team_takes(session, found)
    quotas.replace_terms(session, found.id, asked.terms(quotas.accelerators_known(session)))
    session.expire_all()
    return _shown(session, parts.past, found)


def _shown(session: Session, past: PastUsage, team: Team) -> TeamQuotaView:
    terms = quotas.terms_of(session, team.id)
    held = quotas.slots_held(session, team.id)
    average = {type: slots for (team_id, type), slots in past.read(session).items() if team_id == team.id}
    own = terms.share.quotas
    return TeamQuotaView(
        team=team.name,
        team_id=team.id,
        weight=terms.share.weight,
        quotas=[QuotaView.of(type, own.get(type), held, average) for type in sorted({*own, *held, *average})],
        limits=terms.limits,
        waiting_jobs=quotas.waiting_jobs(session, team.id),
        stored_bytes=quotas.stored_bytes(session, team.id),
    )
