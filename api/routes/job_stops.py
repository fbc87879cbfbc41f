"""Asking a job of whatever kind to stop, and to go on."""

from __future__ import annotations

from fastapi import APIRouter

from api.audit_trail import AuditedRoute
from api.deps import OperatorDep, ScopeDep, WriterDep, job_path
from api.errors import documented
from api.extraction_schemas import ExtractionView
from api.extraction_views import view_of_kind
from api.routes.kinds import post_of_each_kind
from api.schemas import JobView
from api.services.stops import resume_job, stop_job
from shared.db.jobs import tries
from shared.db.models import Job
from shared.db.scope import Scope
from shared.domain.changes import Changes, TrainingChanges
from shared.domain.job import StopReason
from shared.domain.job_kind import JobKind

router = APIRouter(tags=["stopping"], route_class=AuditedRoute)
_REFUSALS = documented(403, 404, 409)


@post_of_each_kind(router, "/cancel", responses=_REFUSALS)
def cancel(job_id: str, scope: ScopeDep, caller: WriterDep) -> JobView | ExtractionView:
    """End a job that waits or is paused at once; ask one that runs to stop. Asking again changes nothing."""
    return _shown(scope, stop_job(scope, caller, job_id, StopReason.CANCEL))


@post_of_each_kind(router, "/pause", responses=_REFUSALS)
def pause(job_id: str, scope: ScopeDep, caller: WriterDep) -> JobView | ExtractionView:
    """Pause a job: one that waits at once, one that runs at its next step, once its checkpoint is stored.

    It holds no slots then, and uses up no attempt. Asking again changes nothing.
    """
    return _shown(scope, stop_job(scope, caller, job_id, StopReason.PAUSE))


@router.post(f"{job_path(JobKind.FINE_TUNING)}/{{job_id}}/resume", responses=_REFUSALS)
def resume(
    job_id: str, scope: ScopeDep, caller: WriterDep, changes: TrainingChanges | None = None
) -> JobView | ExtractionView:
    """Let a paused job go on from its newest checkpoint, behind the jobs that wait.

    What the body names is changed from there on: `hyperparameters.n_epochs` and `.learning_rate`,
    `max_duration_s`, `priority`. A job that is still leaving its slots is refused: wait until it is paused.
    One that waits or runs goes on already, and is left as it is.
    """
    return _shown(scope, resume_job(scope, caller, job_id, changes or TrainingChanges()))


@router.post(f"{job_path(JobKind.FEATURE_EXTRACTION)}/{{job_id}}/resume", responses=_REFUSALS)
def resume_extraction(
    job_id: str, scope: ScopeDep, caller: WriterDep, changes: Changes | None = None
) -> JobView | ExtractionView:
    """Let a paused extraction go on behind its stored shards. The body may change its limits."""
    return _shown(scope, resume_job(scope, caller, job_id, changes or Changes()))


@post_of_each_kind(router, "/preempt", responses=_REFUSALS)
def preempt(job_id: str, scope: ScopeDep, caller: OperatorDep) -> JobView | ExtractionView:
    """For admins: have a job of any team hand its slots back.

    It leaves at its next step, and waits again with its checkpoint, behind the others of its priority. It
    uses up no attempt. Asking again changes nothing.
    """
    theirs = scope.of_owner(job_id)
    return _shown(theirs, stop_job(theirs, caller, job_id, StopReason.PREEMPT))


def _shown(scope: Scope, job: Job) -> JobView | ExtractionView:
    return view_of_kind(job, tries(scope, job.id))
