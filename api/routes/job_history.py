"""What a job measured, and what it could go on from: metrics and checkpoints."""

from __future__ import annotations

import re
from typing import Literal

from fastapi import APIRouter

from api.deps import ScopeDep
from api.errors import documented
from api.query import After, Limit
from api.schemas import CheckpointView, ListOf, MetricView
from api.views import checkpoint_view, metric_view, page_of
from shared.db.jobs import checkpoints, metrics
from shared.domain.errors import Invalid

_METRIC_ID = re.compile(r"\d{1,18}\Z")


router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["history"])


@router.get("/checkpoints", responses=documented(422, 404))
def list_checkpoints(
    job_id: str, scope: ScopeDep, after: After = None, limit: Limit = 10
) -> ListOf[CheckpointView]:
    """The job's stored checkpoints, the newest first."""
    return page_of(checkpoints(scope, job_id, after=after, limit=limit), checkpoint_view)


@router.get("/metrics", responses=documented(422, 404))
def list_metrics(
    job_id: str,
    scope: ScopeDep,
    after: After = None,
    limit: Limit = 100,
    kind: Literal["train", "validation"] | None = None,
) -> ListOf[MetricView]:
    """What training and validation measured, the oldest first."""
    if after is not None and not _METRIC_ID.match(after):
        raise Invalid(f"{after!r} is no id of a metric, which is a number", param="after")
    page = metrics(scope, job_id, after=int(after) if after else 0, limit=limit, kind=kind)
    return page_of(page, metric_view)
