"""/v1/queue: what waits for slots, in whose turn, and what slots there are."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import CallerDep, PartsDep, ScopeDep
from api.extraction_views import summary_of_kind
from api.queue_schemas import QueueView, SlotsView
from api.services.turns import with_turn
from api.views import page_of
from shared.db.forecast import slots_in_sum
from shared.db.jobs import queued_jobs

router = APIRouter(prefix="/v1/queue", tags=["queue"])


@router.get("")
def queue(
    scope: ScopeDep,
    caller: CallerDep,
    parts: PartsDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> QueueView:
    """The team's jobs of every kind that wait for slots, in their order; for a key of role admin all teams'.

    `wait_reason` says what each waits for, `queue_position` where it stands in the whole cluster's queue, and
    `estimated_start` when it may start. Other teams' jobs are told as counts alone.
    """
    made = parts.turns.now(scope.session)
    turns = {turn.job_id: turn for turn in made.turns}
    jobs = queued_jobs(scope, list(turns), limit, of_all_teams=caller.role == "admin")
    page = page_of(jobs, lambda job: with_turn(summary_of_kind(job), made, turns[job.id]))
    slots = slots_in_sum(scope.session, heard_within_s=parts.settings.heard_within_s)
    return QueueView(**dict(page), n_waiting=len(turns), slots=[SlotsView.model_validate(of) for of in slots])
