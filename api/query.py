"""Query parameters that several routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

After = Annotated[str | None, Query(max_length=200, description="the last object of the page before")]
Limit = Annotated[int, Query(ge=1, le=1000)]
