"""A job comes in: resolved, stored with its first events, and left to the scheduler. No broker is touched."""

from __future__ import annotations

from api.services.job_columns import job_columns
from api.services.plan_cache import PlanCache
from api.services.resolving import resolve_job
from api.services.team_limits import check_job, check_team
from shared.db.history import record
from shared.db.jobs import add_job
from shared.db.keys import Caller
from shared.db.models import Job
from shared.db.scope import Scope
from shared.domain.fits import check_fits
from shared.domain.job_kind import JobKind
from shared.domain.spec import JobSpec
from shared.domain.stored_plan import to_store
from shared.settings import Settings


def submit(
    scope: Scope, caller: Caller, settings: Settings, plans: PlanCache, spec: JobSpec, job_id: str
) -> Job:
    """Store the job that `spec` asks for under this new id. Raises ThawErrors, and then nothing is stored."""
    check_job(scope, spec)
    found = resolve_job(scope, spec, plans)
    training, validation = found.data.training, found.data.validation
    assert training is not None  # JobSpec cannot do without one
    check_fits(found.plan.demand, found.plan.kinds)
    job = Job(
        id=job_id,
        kind=JobKind.FINE_TUNING,
        training_file_id=training.id,
        validation_file_id=validation.id if validation else None,
        resolved=found.job.model_dump(mode="json"),
        freeze_plan=to_store(found.plan.data()),
        memory_bytes=found.plan.demand.on("cuda"),
        **job_columns(caller, settings, spec, found.start),
    )
    check_team(scope)
    add_job(scope, job, actor=caller.actor)
    # What refuses nothing may still be why the job waits or fails; whoever watches it should see it.
    for warning in found.plan.on_nodes["warnings"]:
        record(scope.session, job, "note", warning, actor=caller.actor, level="warn")
    return job
