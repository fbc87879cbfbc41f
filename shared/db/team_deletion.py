"""A team goes with all that it owns: asked for once, carried on by the scheduler from what the rows say.

First its keys end, its quotas and limits go, and its jobs are cancelled. Once every one of them is over, its
jobs and files are marked as deleted, a batch a step, and at last the team itself. Nothing is remembered
between two steps, so whoever dies in between is taken over from by the next pass of any scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, delete, func, select, update
from sqlalchemy.orm import Session

from shared.db.batches import among
from shared.db.clock import now
from shared.db.history import lock_job
from shared.db.keys import Caller
from shared.db.models import Attempt, File, IdempotencyKey, Job, Team
from shared.db.own_keys import check_an_admin_stays, revoke_all
from shared.db.quotas import forget_terms
from shared.db.stops import ask_to_stop
from shared.db.teams import get_team
from shared.domain.errors import NotFound
from shared.domain.job import FINAL_JOB_STATES, LIVE_ATTEMPT_STATES, JobState, StopReason
from shared.domain.team_deletion import Owned, check_confirmed, check_not_own

BATCH = 1000
_JOBS_A_STEP = 100
_IS_GOING = and_(Team.deletion_asked_at.is_not(None), Team.deleted_at.is_(None))


def delete_team(session: Session, caller: Caller, named: str, *, confirm: str | None) -> Team:
    """Have a team go; one that owns nothing is gone at once. Asking again changes nothing.

    Raises NotFound; Conflict where it owns something and `confirm` is left out, for the caller's own team,
    and where it has the last valid key of role admin; Invalid where `confirm` is not its name.
    """
    team = get_team(session, caller, named)
    # Whoever stores a job, a file or a key of the team holds a share of this row: both see each other.
    session.refresh(team, with_for_update=True)
    if team.deleted_at is not None:
        raise NotFound(f"no team {named!r}")
    is_asked = team.deletion_asked_at is not None
    check_confirmed(team.name, Owned(0, 0) if is_asked else owned(session, team.id), confirm)
    if not is_asked:
        check_an_admin_stays(session, without_team=team.id)
        check_not_own(team.name, team.id, caller.team_id)
        revoke_all(session, team.id)
        forget_terms(session, team.id)
        team.deletion_asked_at = now(session)
        team.deletion_asked_by = caller.actor
    _end_if_empty(session, team)
    return team


def owned(session: Session, team_id: str) -> Owned:
    """What the team has that was not deleted."""
    counts = [
        session.scalar(
            select(func.count())
            .select_from(entity)
            .where(entity.team_id == team_id, entity.deleted_at.is_(None))
        )
        or 0
        for entity in (Job, File)
    ]
    return Owned(*counts)


def unfinished_jobs(session: Session, team_id: str) -> int:
    """How many of the team's jobs are not over."""
    query = select(func.count()).select_from(Job)
    return session.scalar(query.where(Job.team_id == team_id, Job.finished_at.is_(None))) or 0


def jobs_to_end(session: Session) -> Sequence[str]:
    """Some of the jobs that are not over, nor on their way to it, of teams that are being deleted."""
    is_leaving = and_(Job.state == JobState.STOPPING, Job.stop_reason == StopReason.CANCEL)
    return session.scalars(
        select(Job.id)
        .join(Team, Team.id == Job.team_id)
        .where(_IS_GOING, Job.finished_at.is_(None), ~is_leaving)
        .order_by(Job.id)
        .limit(_JOBS_A_STEP)
    ).all()


def end_job(session: Session, job_id: str) -> None:
    """Cancel a job of a team that is being deleted, unless it is over by now."""
    job = lock_job(session, job_id)
    if job.state in FINAL_JOB_STATES:
        return
    team = session.get_one(Team, job.team_id)
    assert team.deletion_asked_by is not None
    reason = f"cancelled, as its team {team.name} is being deleted"
    ask_to_stop(session, job, StopReason.CANCEL, actor=team.deletion_asked_by, reason=reason)


def teams_to_delete(session: Session) -> Sequence[str]:
    """The teams that are being deleted."""
    return session.scalars(select(Team.id).where(_IS_GOING).order_by(Team.deletion_asked_at)).all()


def carry_on(session: Session, team_id: str) -> str | None:
    """Delete some of what a team has, once its jobs are over, and the team with the last of it.

    Returns the team's name where it is gone now.
    """
    query = select(Team).where(Team.id == team_id, _IS_GOING)
    team = session.scalars(query.with_for_update(skip_locked=True)).one_or_none()
    if team is None or _is_at_work(session, team_id):
        return None
    for entity in (Job, File):
        rest = select(entity.id).where(entity.team_id == team_id, entity.deleted_at.is_(None)).limit(BATCH)
        session.execute(
            update(entity)
            .where(entity.id == among(rest))
            .values(deleted_at=func.clock_timestamp())
            .execution_options(synchronize_session=False)
        )
    return team.name if _end_if_empty(session, team) else None


def _is_at_work(session: Session, team_id: str) -> bool:
    """Whether a job of the team is not over, or an attempt of one may still write."""
    theirs = select(Job.id).where(Job.team_id == team_id).limit(1)
    live = theirs.join(Attempt, Attempt.job_id == Job.id).where(Attempt.state.in_(LIVE_ATTEMPT_STATES))
    at_work = (theirs.where(Job.finished_at.is_(None)), live)
    return any(session.scalar(query) is not None for query in at_work)


def _end_if_empty(session: Session, team: Team) -> bool:
    """Mark a locked team that has nothing left as deleted, and free its name."""
    if owned(session, team.id) != Owned(0, 0) or _is_at_work(session, team.id):
        return False
    revoke_all(session, team.id)
    session.execute(
        delete(IdempotencyKey)
        .where(IdempotencyKey.team_id == team.id)
        .execution_options(synchronize_session=False)
    )
    team.deleted_at = now(session)
    return True
