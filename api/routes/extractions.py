"""/v1/feature_extraction/jobs: submit, look."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from api.audit_trail import AuditedRoute
from api.deps import PartsDep, ScopeDep, WriterDep
from api.errors import documented
from api.extraction_schemas import ExtractionSummary, ExtractionView
from api.extraction_views import extraction_summary, extraction_view
from api.idempotency import REPLAYED, KeyDep, tell_replay
from api.query import METADATA, After, metadata_pairs
from api.schemas import Deleted, ListOf
from api.services.extracting import submit_extraction
from api.services.submit_once import submit_once
from api.views import page_of
from shared.db.deletion import delete_job
from shared.db.jobs import list_jobs, tries
from shared.db.models import Job
from shared.db.scope import Scope
from shared.domain.extraction_spec import ExtractionSpec
from shared.domain.job_kind import JobKind

router = APIRouter(
    prefix="/v1/feature_extraction/jobs", tags=["feature-extraction"], route_class=AuditedRoute
)


@router.post("", responses=documented(403, 409, 413, 422) | REPLAYED)
def create(
    spec: ExtractionSpec, scope: ScopeDep, caller: WriterDep, parts: PartsDep, key: KeyDep, response: Response
) -> ExtractionView:
    """Run a model over a data set and save what its modules put out, with the names of the samples.

    The same Idempotency-Key with the same body answers with the job that is there already.
    """
    store = partial(submit_extraction, scope, caller, parts.settings, spec)
    submitted = submit_once(scope, JobKind.FEATURE_EXTRACTION, key, spec, store)
    tell_replay(response, submitted)
    return _shown(scope, submitted.job)


@router.get("", responses=documented(422, 404), openapi_extra=METADATA)
def list_all(
    request: Request,
    scope: ScopeDep,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> ListOf[ExtractionSummary]:
    """The team's feature extractions, the newest first. `metadata[key]=value` keeps those with the pair."""
    found = list_jobs(scope, after=after, limit=limit, order=order, metadata=metadata_pairs(request))
    return page_of(found, extraction_summary)


@router.get("/{job_id}", responses=documented(404))
def get_one(job_id: str, scope: ScopeDep, parts: PartsDep) -> ExtractionView:
    """One feature extraction, with its attempts and its result."""
    job = scope.get(Job, job_id)
    return parts.turns.tell(scope.session, job, _shown(scope, job))


@router.delete("/{job_id}", responses=documented(403, 404, 409))
def delete(job_id: str, scope: ScopeDep, caller: WriterDep) -> Deleted:
    """Delete one that is over, with all that it has left."""
    return Deleted(id=delete_job(scope, job_id, actor=caller.actor).id, object="feature_extraction.job")


def _shown(scope: Scope, job: Job) -> ExtractionView:
    return extraction_view(job, tries(scope, job.id))
