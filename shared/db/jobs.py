"""Jobs as people see them: made, listed, and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.deletion import check_base_stays
from shared.db.history import move, record, record_created
from shared.db.models import Allocation, Artifact, Attempt, Job, Metric
from shared.db.paging import Order, Page, by_creation, read_page
from shared.db.scope import Scope
from shared.db.storable import comparable
from shared.db.teams import check_team_stays
from shared.domain.errors import NotFound
from shared.domain.job import JobState


def add_job(scope: Scope, job: Job, *, actor: str) -> None:
    """Store a new job with its first events, and queue it unless its `wait_reason` says what it waits for."""
    waits_for = job.wait_reason
    job.state = JobState.VALIDATING_FILES
    job.n_events = 0
    scope.session.add(job)
    scope.session.flush()
    check_base_stays(scope, job)
    check_team_stays(scope.session, job.team_id)
    record_created(scope.session, job, actor=actor)
    if waits_for is None:
        move(scope.session, job, JobState.QUEUED, actor=actor, reason="files checked, waits for slots")
    else:
        record(scope.session, job, "note", waits_for, actor=actor)
    scope.session.flush()
    scope.session.refresh(job)


def list_jobs(
    scope: Scope, *, after: str | None, limit: int, order: Order, metadata: Mapping[str, str | None]
) -> Page[Job]:
    """The team's jobs by age; `metadata` keeps those that have all of these pairs (None: lack that key)."""
    last = scope.get(Job, after) if after is not None else None
    query = scope.select(Job)
    for key, value in metadata.items():
        query = query.where(Job.spec["metadata"][comparable(key)].astext.is_not_distinct_from(value))
    return read_page(scope.session, by_creation(query, Job, last, order), limit)


@dataclass(frozen=True)
class Try:
    """An attempt, and each node's share of it by node rank."""

    attempt: Attempt
    shares: list[Allocation]


def attempts(scope: Scope, job_id: str) -> list[Attempt]:
    """The tries of a job, first to last."""
    return list(scope.session.scalars(scope.select_of_job(Attempt, job_id).order_by(Attempt.number)))


def tries(scope: Scope, job_id: str) -> list[Try]:
    """The same, with what they hold or held of which nodes."""
    found = {attempt.id: Try(attempt, []) for attempt in attempts(scope, job_id)}
    shares = select(Allocation).where(Allocation.attempt_id.in_(found)).order_by(Allocation.node_rank)
    for share in scope.session.scalars(shares):
        found[share.attempt_id].shares.append(share)
    return list(found.values())


def artifacts(scope: Scope, job_id: str, *, after: str | None, limit: int) -> Page[Artifact]:
    """The files of a job's result by name, from behind the name `after`."""
    scope.get(Job, job_id)
    query = scope.select_of_job(Artifact, job_id).order_by(Artifact.name)
    if after is not None:
        query = query.where(Artifact.name > comparable(after))
    return read_page(scope.session, query, limit)


def artifact(scope: Scope, job_id: str, name: str) -> Artifact:
    """One file of a job's result. Raises NotFound, naming those that there are."""
    scope.get(Job, job_id)
    query = scope.select_of_job(Artifact, job_id)
    found = scope.session.scalar(query.where(Artifact.name == comparable(name)))
    if found is not None:
        return found
    known = ", ".join(a.name for a in artifacts(scope, job_id, after=None, limit=20).rows) or "none yet"
    raise NotFound(f"job {job_id} has no artifact {name!r}; it has: {known}")


def metrics(scope: Scope, job_id: str, *, after: int, limit: int, kind: str | None) -> Page[Metric]:
    """The job's measurements in the order in which they were written, from behind `after`."""
    scope.get(Job, job_id)
    query = scope.select_of_job(Metric, job_id).where(Metric.id > after)
    if kind is not None:
        query = query.where(Metric.kind == kind)
    return read_page(scope.session, query.order_by(Metric.id), limit)


def queued_jobs(scope: Scope, in_order: Sequence[str], limit: int, *, of_all_teams: bool) -> Page[Job]:
    """The first of the jobs `in_order` that are the team's, or anybody's for an admin, of every kind."""
    query = select(Job).where(Job.deleted_at.is_(None)) if of_all_teams else scope.of_kind(None).select(Job)
    query = query.where(Job.state == JobState.QUEUED)
    seen = set(scope.session.scalars(query.with_only_columns(Job.id)))
    ids = [job_id for job_id in in_order if job_id in seen]
    rows = {job.id: job for job in scope.session.scalars(query.where(Job.id.in_(ids[:limit])))}
    return Page([rows[id] for id in ids[:limit] if id in rows], has_more=len(ids) > limit)


def count_by_state(session: Session) -> dict[JobState, int]:
    """How many jobs there are in each state, over all teams."""
    rows = session.execute(
        select(Job.state, func.count()).where(Job.deleted_at.is_(None)).group_by(Job.state)
    )
    return {state: count for state, count in rows}  # noqa: C416 - dict() does not accept rows for mypy
