"""Query parameters that several routes share."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request

After = Annotated[str | None, Query(max_length=200, description="the last object of the page before")]
Limit = Annotated[int, Query(ge=1, le=1000)]

_END_OF_9999 = 253_402_300_799
Moment = Annotated[int | None, Query(ge=0, le=_END_OF_9999, description="Unix seconds")]

_METADATA_START = "metadata["
METADATA: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "style": "deepObject",
            "required": False,
            "description": "metadata[key]=value keeps the jobs that have this pair",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ]
}


def metadata_pairs(request: Request) -> dict[str, str | None]:
    """What `metadata[key]=value` asks for."""
    return {
        name.removeprefix(_METADATA_START).removesuffix("]"): value
        for name, value in request.query_params.items()
        if name.startswith(_METADATA_START)
    }
