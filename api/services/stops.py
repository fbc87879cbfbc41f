"""Use cases: a job is asked to stop, or to go on, as it was or otherwise."""

from __future__ import annotations

import time
from typing import Any

from api.services.data_files import DataFiles
from shared.db.keys import Caller
from shared.db.models import File, Job
from shared.db.quotas import limits_of
from shared.db.scope import Scope
from shared.db.stops import ask_to_stop, change_job, go_on, reached, spent_s, standing
from shared.domain.changes import (
    MAX_DURATION,
    PRIORITY,
    Changes,
    SpecChange,
    asked_of,
    check_time,
    check_training,
    differing,
    with_changes,
)
from shared.domain.job import StopReason
from shared.domain.job_kind import JobKind
from shared.domain.resolved import ResolvedJob
from shared.domain.stops import may_go_on
from shared.domain.team_limits import check_duration


def stop_job(scope: Scope, caller: Caller, job_id: str, asked: StopReason) -> Job:
    """Ask a job of the scope to stop; asking again changes nothing. Raises NotFound and Conflict."""
    job = scope.get(Job, job_id, lock=True)
    ask_to_stop(scope.session, job, asked, actor=caller.actor)
    return _as_stored(scope, job)


def resume_job(scope: Scope, caller: Caller, job_id: str, changes: Changes) -> Job:
    """Let a paused job of the scope go on; one that goes on already is left as it is.

    Raises NotFound, Conflict where it cannot go on, and Invalid where it could not with these changes: then
    it stays paused.
    """
    job = scope.get(Job, job_id, lock=True)
    asked = asked_of(changes)
    if may_go_on(standing(job), is_changed=bool(asked)):
        _change(scope, job, asked, caller.actor)
        go_on(scope.session, job, actor=caller.actor)
    return _as_stored(scope, job)


def _change(scope: Scope, job: Job, asked: dict[str, Any], actor: str) -> None:
    fields = {**job.resolved, PRIORITY: job.priority}
    changes = [
        SpecChange(field=field, old=old, new=new, actor=actor, time=time.time())
        for field, old, new in differing(asked, fields)
    ]
    if not changes:
        return
    check_time(changes, spent_s(scope.session, job))
    for change in changes:
        if change.field == MAX_DURATION:
            check_duration(limits_of(scope.session, scope.team_id), _whole(change.new))
    if job.kind is JobKind.FINE_TUNING:
        _check(scope, job, changes)
    change_job(scope.session, job, changes, actor=actor)


def _check(scope: Scope, job: Job, changes: list[SpecChange]) -> None:
    as_changed = ResolvedJob.model_validate(with_changes(job.resolved, _of_training(changes)))
    data = DataFiles(scope.session.get_one(File, job.training_file_id), None, as_changed.class_names)
    n_training = data.n_training(as_changed.validation_fraction)
    assert n_training is not None  # there is a training file
    check_training(
        as_changed,
        {change.field for change in changes},
        reached(scope.session, job),
        n_training=n_training,
        world_size=job.nodes * job.devices_per_node,
    )


def _of_training(changes: list[SpecChange]) -> list[SpecChange]:
    """Those that a resolved job knows of; a priority is the queue's."""
    return [change for change in changes if change.field != PRIORITY]


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _as_stored(scope: Scope, job: Job) -> Job:
    scope.session.flush()
    scope.session.refresh(job)
    return job
