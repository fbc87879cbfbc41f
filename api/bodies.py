"""What holds for every request's body beside its shape: nothing in it is passed over in silence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastapi import Request

from shared.domain.errors import Invalid

_SAYS_NOTHING = frozenset({b"", b"{}", b"null"})


async def refuse_ignored_body(request: Request) -> None:
    """A body that no one reads is an error, and so is a field that is given twice: one would be ignored."""
    route = request.scope["route"]
    if not _has_body(request) or "requestBody" in (route.openapi_extra or {}):
        return
    body = await request.body()
    if route.body_field is not None:
        _check_each_field_once(body)
    elif body.strip() not in _SAYS_NOTHING:
        raise Invalid(
            f"{request.method} {route.path} takes no body, and this one would be ignored; leave it out",
            code="no_effect",
        )


def _has_body(request: Request) -> bool:
    headers = request.headers
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _check_each_field_once(body: bytes) -> None:
    repeated = _Repeated()
    try:
        json.loads(body, object_pairs_hook=repeated.take)
    except (ValueError, RecursionError):
        return  # what is no JSON is refused with the body's shape
    if repeated.path is not None:
        raise Invalid(
            "this field is given more than once, and only one of them would count; give it once",
            param=repeated.path,
            code="repeated_field",
        )


class _Repeated:
    """Finds the first field that an object has twice, while JSON is read from the inside out."""

    def __init__(self) -> None:
        self.path: str | None = None
        self._holder: dict[str, Any] | None = None

    def take(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """The object of these pairs; `path` grows by the object's own step where it holds what was found."""
        made = dict(pairs)
        if self.path is None and len(made) < len(pairs):
            self.path, self._holder = Counter(name for name, _ in pairs).most_common(1)[0][0], made
        elif self.path is not None and (step := self._step_in(pairs)):
            self.path, self._holder = f"{step}.{self.path}", made
        return made

    def _step_in(self, pairs: Sequence[tuple[str, Any]]) -> str | None:
        for name, inner in pairs:
            if inner is self._holder:
                return name
            if isinstance(inner, list):
                places = (place for place, one in enumerate(inner) if one is self._holder)
                if (place := next(places, None)) is not None:
                    return f"{name}[{place}]"
        return None
