"""Stored bytes as an answer: a redirect where the store signs addresses, else a stream of all or a part."""

from __future__ import annotations

import re
from urllib.parse import quote

from fastapi.responses import RedirectResponse, Response, StreamingResponse

from api.errors import refusal
from shared.artifacts import ArtifactStore

_SIGNED_FOR_S = 300
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")


def download(store: ArtifactStore, key: str, size: int, name: str, range: str | None) -> Response:
    """The object's bytes under the name that a browser should save it by. `range` is the request's header."""
    address = store.signed_url(key, _SIGNED_FOR_S)
    if address is not None:
        return RedirectResponse(address, 302)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name.rpartition('/')[2])}",
        "X-Content-Type-Options": "nosniff",
    }
    wanted = _asked_part(range, size)
    if wanted is None:
        return _stream(store, key, 0, size, 200, headers)
    start, end = wanted
    if start >= end:
        answer = refusal(416, f"range {range!r} lies outside of these {size} bytes", param="Range")
        answer.headers["Content-Range"] = f"bytes */{size}"
        return answer
    return _stream(
        store, key, start, end, 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
    )


def _stream(
    store: ArtifactStore, key: str, start: int, end: int, status: int, headers: dict[str, str]
) -> StreamingResponse:
    return StreamingResponse(
        store.stream(key, start, end),
        status,
        {**headers, "Content-Length": str(end - start)},
        media_type="application/octet-stream",
    )


def _asked_part(range: str | None, size: int) -> tuple[int, int] | None:
    """First and behind the last byte; None for the whole, as RFC 9110 wants for a range it cannot read."""
    match = _RANGE.match(range or "")
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        return (max(0, size - int(match[2])), size) if int(match[2]) else (size, size)
    start = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    return None if match[2] and int(match[2]) < start else (start, end)
