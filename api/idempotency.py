"""The header Idempotency-Key: read where it is honoured, refused where it would mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.dependencies.models import Dependant

from api.middleware import UPLOAD_PATH
from api.services.submit_once import Submitted
from shared.domain.errors import Invalid
from shared.domain.idempotency import HEADER, MAX_LENGTH, read_key

_REPLAYED = "Idempotency-Replayed"
_ASKING_ONCE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_INSTEAD = {
    ("POST", UPLOAD_PATH): "a file that was sent already is found by its sha256 in GET /v1/files",
    ("POST", "/v1/keys"): "a key that did not arrive is found in GET /v1/keys, and can be revoked",
}

REPLAYED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            _REPLAYED: {
                "description": "true where an earlier request with this key has made the job",
                "schema": {"type": "string", "enum": ["true"]},
            }
        }
    }
}


async def submission_key(
    request: Request,
    documented: Annotated[
        str | None,
        Header(
            alias=HEADER,
            description=f"names the submission, in 1 to {MAX_LENGTH} printable characters: sent again with "
            "the same body it makes no second job",
        ),
    ] = None,
) -> str | None:
    """The key of the request. Raises Invalid for what is none."""
    return read_key(request.headers.getlist(HEADER))


KeyDep = Annotated[str | None, Depends(submission_key)]


def tell_replay(response: Response, submitted: Submitted) -> None:
    """Say so where the answer is about a job that an earlier request has made."""
    if submitted.is_replay:
        response.headers[_REPLAYED] = "true"


async def refuse_useless_key(request: Request) -> None:
    """A key that would not be honoured is refused rather than ignored."""
    if HEADER not in request.headers or request.method not in _ASKING_ONCE:
        return
    route = request.scope["route"]
    if HEADER in _header_names(route.dependant):
        return
    hint = _INSTEAD.get((request.method, route.path), "asking again does no harm")
    raise Invalid(
        f"{request.method} {route.path} takes no {HEADER}, only the submission of a job does; "
        f"leave it out: {hint}",
        param=HEADER,
        code="no_effect",
    )


def _header_names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.header_params)
    for deeper in dependant.dependencies:
        yield from _header_names(deeper)
