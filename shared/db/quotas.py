"""What teams are owed and may ask for: read, replaced, and held against what they have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from sqlalchemy import Select, delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.models import Allocation, Artifact, Attempt, File, Job, NodeRow, Team, TeamLimit, TeamQuota
from shared.domain.job import LIVE_ALLOCATION_STATES, JobState
from shared.domain.quota import Quota, TeamShare
from shared.domain.team_limits import Limits, TeamTerms

_WAITS = (JobState.VALIDATING_FILES, JobState.QUEUED)


def load_shares(session: Session) -> dict[str, TeamShare]:
    """What each team is owed, where anything is written of it. One that was deleted is owed nothing."""
    teams = select(Team.id).where(Team.deleted_at.is_(None))
    return {team_id: terms.share for team_id, terms in _load(session, teams).items()}


def terms_of(session: Session, team_id: str) -> TeamTerms:
    """One team's quotas and limits."""
    return _load(session, select(Team.id).where(Team.id == team_id)).get(team_id, TeamTerms())


def limits_of(session: Session, team_id: str) -> Limits:
    """What one team's jobs may ask for."""
    row = session.get(TeamLimit, team_id)
    return _limits(row) if row is not None else Limits()


def replace_terms(session: Session, team_id: str, terms: TeamTerms) -> None:
    """Write a team's quotas and limits in place of those that were there."""
    columns = {"weight": terms.share.weight, **terms.limits.model_dump()}
    written = upsert(TeamLimit).values(team_id=team_id, **columns)
    session.execute(written.on_conflict_do_update(index_elements=["team_id"], set_=columns))
    session.execute(delete(TeamQuota).where(TeamQuota.team_id == team_id))
    rows = [
        {
            "team_id": team_id,
            "accelerator": accelerator,
            "nominal_quota": quota.nominal,
            "borrowing_limit": quota.borrowing_limit,
            "lending_limit": quota.lending_limit,
        }
        for accelerator, quota in terms.share.quotas.items()
    ]
    if rows:
        session.execute(insert(TeamQuota), rows)


def forget_terms(session: Session, team_id: str) -> None:
    """Take a team's quotas, weight and limits away."""
    for table in (TeamQuota, TeamLimit):
        session.execute(
            delete(table).where(table.team_id == team_id).execution_options(synchronize_session=False)
        )


def lock_team(session: Session, team_id: str) -> None:
    """Have those who count what the team has take turns until the transaction ends."""
    session.execute(select(Team.id).where(Team.id == team_id).with_for_update(key_share=True))


def waiting_jobs(session: Session, team_id: str) -> int:
    """How many of the team's jobs wait, for slots or for another job's model."""
    query = select(func.count()).select_from(Job).where(Job.team_id == team_id, Job.state.in_(_WAITS))
    return session.scalars(query).one()


def stored_bytes(session: Session, team_id: str) -> int:
    """What the team's files and results take in the store; not what the next sweep removes."""
    files = select(func.coalesce(func.sum(File.bytes), 0)).where(
        File.team_id == team_id, File.deleted_at.is_(None)
    )
    results = (
        select(func.coalesce(func.sum(Artifact.bytes), 0))
        .join(Job, Job.id == Artifact.job_id)
        .where(Job.team_id == team_id, Job.deleted_at.is_(None))
    )
    return int(session.scalars(files).one()) + int(session.scalars(results).one())


def slots_held(session: Session, team_id: str) -> Mapping[str, int]:
    """How many slots of each accelerator type the team's jobs hold just now."""
    rows = session.execute(
        select(Allocation.accelerator, func.sum(func.cardinality(Allocation.slots)))
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(Allocation.state.in_(LIVE_ALLOCATION_STATES), Job.team_id == team_id)
        .group_by(Allocation.accelerator)
    )
    return Counter({accelerator: int(slots) for accelerator, slots in rows})


def accelerators_known(session: Session) -> set[str]:
    """Every accelerator type that a node has or had, and cpu, which every host has."""
    return {"cpu", *session.scalars(select(NodeRow.accelerator).distinct())}


def _load(session: Session, teams: Select[str]) -> dict[str, TeamTerms]:
    quotas: defaultdict[str, dict[str, Quota]] = defaultdict(dict)
    rows = select(TeamQuota).where(TeamQuota.team_id.in_(teams)).order_by(TeamQuota.accelerator)
    for row in session.scalars(rows):
        quotas[row.team_id][row.accelerator] = Quota(
            row.nominal_quota, row.borrowing_limit, row.lending_limit
        )
    limits = {
        row.team_id: row for row in session.scalars(select(TeamLimit).where(TeamLimit.team_id.in_(teams)))
    }
    return {team: _terms(limits.get(team), quotas[team]) for team in sorted({*quotas, *limits})}


def _terms(row: TeamLimit | None, quotas: Mapping[str, Quota]) -> TeamTerms:
    if row is None:
        return TeamTerms(TeamShare(quotas=quotas), Limits())
    allowed = None if row.accelerators is None else frozenset(row.accelerators)
    return TeamTerms(TeamShare(row.weight, quotas, allowed), _limits(row))


def _limits(row: TeamLimit) -> Limits:
    return Limits(
        max_queued_jobs=row.max_queued_jobs,
        max_storage_bytes=row.max_storage_bytes,
        max_duration_s=row.max_duration_s,
        max_devices=row.max_devices,
        accelerators=row.accelerators,
        keep_jobs_days=row.keep_jobs_days,
        keep_files_days=row.keep_files_days,
    )
