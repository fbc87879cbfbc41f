"""What a job measured, and what it could go on from: metrics and checkpoints."""

from __future__ import annotations

import re
from typing import Literal

from fastapi import APIRouter, Request, Response

from api.deps import PartsDep, ScopeDep
from api.download import download
from api.errors import documented
from api.query import After, Limit
from api.schemas import CheckpointView, ListOf, MetricView
from api.services.checkpoint_files import find_file
from api.views import checkpoint_view, metric_view, page_of
from shared.db.jobs import metrics
from shared.db.listed_checkpoints import list_checkpoints as checkpoint_page
from shared.db.listed_checkpoints import one_checkpoint
from shared.domain.errors import Invalid

_METRIC_ID = re.compile(r"\d{1,18}\Z")


router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["history"])


@router.get("/checkpoints", responses=documented(422, 404))
def list_checkpoints(
    job_id: str, scope: ScopeDep, after: After = None, limit: Limit = 10
) -> ListOf[CheckpointView]:
    """The checkpoints that the job keeps, the newest first."""
    return page_of(checkpoint_page(scope, job_id, after=after, limit=limit), checkpoint_view)


@router.get("/checkpoints/{checkpoint_id}", responses=documented(404))
def get_checkpoint(job_id: str, checkpoint_id: str, scope: ScopeDep) -> CheckpointView:
    """One checkpoint that the job keeps, with its files."""
    return checkpoint_view(one_checkpoint(scope, job_id, checkpoint_id))


@router.get(
    "/checkpoints/{checkpoint_id}/files/{name}", responses=documented(404, 416), response_class=Response
)
def get_checkpoint_file(
    job_id: str, checkpoint_id: str, name: str, request: Request, scope: ScopeDep, parts: PartsDep
) -> Response:
    """The file's bytes (those that the header Range asks for), or a redirect to a signed address.

    manifest.json, which lists the others, can be asked for too.
    """
    found = find_file(one_checkpoint(scope, job_id, checkpoint_id), name, parts.store)
    return download(parts.store, found.key, found.bytes, name, request.headers.get("range"))


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
