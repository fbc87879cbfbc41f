"""The jobs that hold slots, as the scheduler sees them, and asking one to hand back what it borrowed."""

from __future__ import annotations

from sqlalchemy import Float, cast, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from shared.db.models import Allocation, Attempt, Job, TeamQuota
from shared.db.stops import ask_to_stop
from shared.db.teams import names_of
from shared.domain.cluster import Preemption, Running, expected_remaining_s
from shared.domain.job import LIVE_ALLOCATION_STATES, AttemptState, JobState, StopReason

_HOLDS_SLOTS = (JobState.DISPATCHED, JobState.RUNNING)


def load_running(session: Session) -> list[Running]:
    """Every job that holds slots, with what it holds of each of its nodes."""
    by_rank = Allocation.node_rank
    rows = session.execute(
        select(
            Job.id,
            Job.team_id,
            func.array_agg(aggregate_order_by(Allocation.node_id, by_rank)).label("node_ids"),
            func.array_agg(aggregate_order_by(func.cardinality(Allocation.slots), by_rank)).label("n_slots"),
            func.min(Allocation.accelerator).label("accelerator"),
            cast(func.extract("epoch", Attempt.created_at), Float).label("started_at"),
            cast(func.extract("epoch", func.clock_timestamp() - Attempt.created_at), Float).label("age_s"),
            Job.state,
            Attempt.state.label("attempt_state"),
            Job.resolved["max_duration_s"].label("limit_s"),
        )
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(Allocation.state.in_(LIVE_ALLOCATION_STATES))
        .group_by(Job.id, Attempt.id)
    )
    return [
        Running(
            id=row.id,
            team=row.team_id,
            held=tuple(zip(row.node_ids, row.n_slots, strict=True)),
            accelerator=row.accelerator,
            started_at=row.started_at,
            is_leaving=row.state is JobState.STOPPING or row.attempt_state is AttemptState.ENDING,
            remaining_s=expected_remaining_s(row.age_s, row.limit_s),
        )
        for row in rows
    ]


def ask_back(session: Session, asked: Preemption, *, actor: str) -> None:
    """Ask a job to hand back what it borrowed; one that somebody holds, or that is going, is left alone."""
    job = session.scalars(
        select(Job)
        .where(Job.id == asked.job_id, Job.state.in_(_HOLDS_SLOTS))
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if job is None:
        return
    nominal = session.scalar(
        select(TeamQuota.nominal_quota).where(
            TeamQuota.team_id == asked.for_team, TeamQuota.accelerator == asked.accelerator
        )
    )
    owner = names_of(session, [asked.for_team])[asked.for_team]
    reason = (
        f"The team {owner} takes its nominal quota of {nominal} of type {asked.accelerator} back, which this "
        "job has borrowed."
    )
    ask_to_stop(session, job, StopReason.PREEMPT, actor=actor, reason=reason)
