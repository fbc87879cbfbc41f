"""Lists that the server gives a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from thaw.transport import Transport

PAGE = 100


def pages(
    transport: Transport,
    path: str,
    limit: int = PAGE,
    key: str = "id",
    filters: Mapping[str, str | None] = MappingProxyType({}),
) -> Iterator[dict[str, Any]]:
    """Every entry of the list at `path`; `limit` is a page's size, `key` the field that `after` takes.

    `filters` are parameters of every page.
    """
    after: str | None = None
    while True:
        page = transport.get(path, after=after, limit=limit, **filters)
        yield from page["data"]
        if not page.get("has_more") or not page["data"]:
            return
        after = str(page["data"][-1][key])
