"""What a job of whatever kind leaves behind: the files of its result, and its log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.deps import PartsDep, ScopeDep
from api.download import download
from api.errors import documented
from api.query import After, Limit
from api.routes.kinds import get_of_each_kind
from api.schemas import ArtifactView, ListOf
from api.services.logs import read_log
from api.views import artifact_view, page_of
from shared.db.jobs import artifact
from shared.db.jobs import artifacts as list_artifact_page

router = APIRouter(tags=["results"])


@get_of_each_kind(router, "/artifacts", responses=documented(422, 404))
def list_artifacts(
    job_id: str, scope: ScopeDep, after: After = None, limit: Limit = 100
) -> ListOf[ArtifactView]:
    """The files of the job's result by name; `after` is a name."""
    return page_of(list_artifact_page(scope, job_id, after=after, limit=limit), artifact_view)


@get_of_each_kind(router, "/artifacts/{name:path}", responses=documented(404, 416), response_class=Response)
def get_artifact(job_id: str, name: str, request: Request, scope: ScopeDep, parts: PartsDep) -> Response:
    """The file's bytes (those that the header Range asks for), or a redirect to a signed address."""
    found = artifact(scope, job_id, name)
    return download(parts.store, found.storage_key, found.bytes, name, request.headers.get("range"))


@get_of_each_kind(router, "/logs", responses=documented(422, 404), response_class=Response)
def logs(
    job_id: str,
    scope: ScopeDep,
    parts: PartsDep,
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> Response:
    """The log of the job's last attempt as text, from byte `offset`.

    The header X-Next-Offset is the `offset` to ask with for what is written later. A job that is tried again
    begins a new log: the header X-Attempt has the number of the try, and with another number, read from 0.
    """
    part = read_log(scope, parts.store, job_id, offset)
    following = {"X-Next-Offset": str(part.next_offset)}
    if part.attempt is not None:
        following["X-Attempt"] = str(part.attempt)
    return StreamingResponse(part.chunks, headers=following, media_type="text/plain; charset=utf-8")
