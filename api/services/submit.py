"""A job comes in: resolved, stored with its first events, and left to the scheduler. No broker is touched."""

from __future__ import annotations

from api.services.plan_cache import PlanCache
from api.services.resolving import resolve_job
from api.services.team_limits import check_job, check_team
from shared.db.history import record
from shared.db.jobs import add_job
from shared.db.keys import Caller
from shared.db.models import Job
from shared.db.scope import Scope
from shared.domain.fits import check_fits
from shared.domain.spec import JobSpec
from shared.domain.stored_plan import to_store
from shared.settings import Settings


def submit(
    scope: Scope, caller: Caller, settings: Settings, plans: PlanCache, spec: JobSpec, job_id: str
) -> Job:
    """Store the job that `spec` asks for under this new id. Raises ThawErrors, and then nothing is stored."""
    check_job(scope, spec)
    found = resolve_job(scope, spec, plans)
    base, files = found.start.base, found.data
    assert files.training is not None  # JobSpec cannot do without one
    check_fits(found.plan.demand, found.plan.kinds)
    job = Job(
        id=job_id,
        team_id=scope.team_id,
        created_by=caller.key_id,
        model=spec.model,
        base_job_id=base.job.id if base.job else None,
        training_file_id=files.training.id,
        validation_file_id=files.validation.id if files.validation else None,
        weights_file_id=found.start.file.id if found.start.file else None,
        spec=spec.model_dump(mode="json"),
        resolved=found.job.model_dump(mode="json"),
        freeze_plan=to_store(found.plan.data()),
        priority=spec.priority,
        devices_per_node=spec.resources.devices_per_node,
        nodes=spec.resources.nodes,
        accelerator=spec.resources.accelerator,
        memory_bytes=found.plan.demand.on("cuda"),
        max_attempts=settings.max_attempts,
        wait_reason=f"waits for the model of job {base.waits_for}" if base.waits_for else None,
    )
    check_team(scope)
    add_job(scope, job, actor=caller.actor)
    # What refuses nothing may still be why the job waits or fails; whoever watches it should see it.
    for warning in found.plan.on_nodes["warnings"]:
        record(scope.session, job, "note", warning, actor=caller.actor, level="warn")
    return job
