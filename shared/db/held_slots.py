"""The jobs that hold slots, as the scheduler sees them, and asking one to hand back what it borrowed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Float, Row, cast, func, select
from sqlalchemy.orm import Session

from shared.db.models import Allocation, Attempt, Job, TeamQuota
from shared.db.stops import ask_to_stop
from shared.db.teams import names_of
from shared.domain.cluster import Preemption, Running, expected_remaining_s
from shared.domain.job import LIVE_ALLOCATION_STATES, AttemptState, JobState, StopReason

_HOLDS_SLOTS = (JobState.DISPATCHED, JobState.RUNNING)


def load_running(session: Session) -> list[Running]:
    """Every job that holds slots, with what it holds of each of its nodes."""
    rows = session.execute(
        select(
            Job.id,
            Job.team_id,
            Allocation.node_id,
            func.cardinality(Allocation.slots).label("n_slots"),
            Allocation.accelerator,
            cast(func.extract("epoch", Attempt.created_at), Float).label("started_at"),
            cast(func.extract("epoch", func.clock_timestamp() - Attempt.created_at), Float).label("age_s"),
            Job.state,
            Attempt.state.label("attempt_state"),
            cast(Job.resolved["max_duration_s"].astext, Float).label("limit_s"),
        )
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(Allocation.state.in_(LIVE_ALLOCATION_STATES))
        .order_by(Attempt.id, Allocation.node_rank)
    )
    return [_running(list(shares)) for _, shares in groupby(rows, key=attrgetter("id"))]


def _running(shares: Sequence[Row[Any]]) -> Running:
    """`shares`: one of each node, by rank."""
    first = shares[0]
    return Running(
        id=first.id,
        team=first.team_id,
        held=tuple((share.node_id, share.n_slots) for share in shares),
        accelerator=first.accelerator,
        started_at=first.started_at,
        is_leaving=first.state is JobState.STOPPING or first.attempt_state is AttemptState.ENDING,
        remaining_s=expected_remaining_s(first.age_s, first.limit_s),
    )


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
