"""The jobs that hold slots, as the scheduler sees them, and asking some to hand back what they borrowed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Float, Row, cast, func, select
from sqlalchemy.orm import Session

from shared.db.clock import seconds_since
from shared.db.history import lock_jobs
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
            seconds_since(Attempt.created_at).label("age_s"),
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


def ask_back(session: Session, asked: Sequence[Preemption], *, actor: str) -> None:
    """Ask jobs to hand back what they borrowed; one that somebody holds, or that is going, is left alone.

    With as few statements for hundreds as for one.
    """
    jobs = lock_jobs(session, [one.job_id for one in asked], _HOLDS_SLOTS)
    owners = {one.for_team for one in asked}
    names, nominal = names_of(session, owners), _nominal_quotas(session, owners)
    for one in filter(lambda one: one.job_id in jobs, asked):
        reason = (
            f"The team {names[one.for_team]} takes its nominal quota of "
            f"{nominal.get((one.for_team, one.accelerator))} of type {one.accelerator} back, which this job "
            "has borrowed."
        )
        ask_to_stop(session, jobs[one.job_id], StopReason.PREEMPT, actor=actor, reason=reason)


def _nominal_quotas(session: Session, team_ids: Collection[str]) -> dict[tuple[str, str], int]:
    """By team and accelerator type."""
    rows = session.execute(
        select(TeamQuota.team_id, TeamQuota.accelerator, TeamQuota.nominal_quota).where(
            TeamQuota.team_id.in_(team_ids)
        )
    )
    return {(team_id, accelerator): nominal for team_id, accelerator, nominal in rows}
