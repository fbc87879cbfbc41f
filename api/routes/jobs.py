"""/v1/fine_tuning/jobs: submit, look."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from api.audit_trail import AuditedRoute
from api.deps import PartsDep, ScopeDep, WriterDep
from api.errors import documented
from api.idempotency import REPLAYED, KeyDep, tell_replay
from api.query import METADATA, After, metadata_pairs
from api.schemas import Deleted, JobSummary, JobView, ListOf, Plan
from api.services.resolving import resolve_job
from api.services.submit import submit
from api.services.submit_once import submit_once
from api.views import job_summary, job_view, page_of, resolved_head
from shared.db.deletion import delete_job
from shared.db.jobs import list_jobs, tries
from shared.db.models import Job
from shared.db.scope import Scope
from shared.domain.job_kind import JobKind
from shared.domain.spec import JobSpec, PlanSpec

router = APIRouter(prefix="/v1", tags=["fine-tuning"], route_class=AuditedRoute)


@router.post("/fine_tuning/jobs", responses=documented(403, 409, 422) | REPLAYED)
def create(
    spec: JobSpec, scope: ScopeDep, caller: WriterDep, parts: PartsDep, key: KeyDep, response: Response
) -> JobView:
    """Submit a job: a base model, a data set, and what stays frozen.

    The same Idempotency-Key with the same body answers with the job that is there already.
    """
    store = partial(submit, scope, caller, parts.settings, parts.plans, spec)
    submitted = submit_once(scope, JobKind.FINE_TUNING, key, spec, store)
    tell_replay(response, submitted)
    return _shown(scope, submitted.job)


@router.get("/fine_tuning/jobs", responses=documented(422, 404), openapi_extra=METADATA)
def list_all(
    request: Request,
    scope: ScopeDep,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> ListOf[JobSummary]:
    """The team's jobs, the newest first. `metadata[key]=value` keeps those that have the pair."""
    wanted = metadata_pairs(request)
    return page_of(list_jobs(scope, after=after, limit=limit, order=order, metadata=wanted), job_summary)


@router.get("/fine_tuning/jobs/{job_id}", responses=documented(404))
def get_one(job_id: str, scope: ScopeDep, parts: PartsDep) -> JobView:
    """One job, with its freeze plan, its attempts and its result."""
    job = scope.get(Job, job_id)
    return parts.turns.tell(scope.session, job, _shown(scope, job))


@router.delete("/fine_tuning/jobs/{job_id}", responses=documented(403, 404, 409))
def delete(job_id: str, scope: ScopeDep, caller: WriterDep) -> Deleted:
    """Delete a job that is over, with all that it has left, unless an unfinished job goes on from it."""
    return Deleted(id=delete_job(scope, job_id, actor=caller.actor).id, object="fine_tuning.job")


@router.post("/fine_tuning/plan", response_model=Plan, responses=documented(409, 422))
def plan(spec: PlanSpec, scope: ScopeDep, parts: PartsDep) -> Response:
    """What a job would freeze and train, and what that takes: memory, whether it fits, what it leaves behind.

    Takes a job's body, whose files may be left out; stores nothing.
    """
    found = resolve_job(scope, spec, parts.plans)
    head = resolved_head(found.job.model_dump(mode="json", include={"target", "replace_head"}))
    text = found.plan.text(object="fine_tuning.plan", model=spec.model, head=head)
    return Response(text, media_type="application/json")


def _shown(scope: Scope, job: Job) -> JobView:
    return job_view(job, tries(scope, job.id))
