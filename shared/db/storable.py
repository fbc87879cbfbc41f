"""What Postgres can keep of what a run tells: no text of it, JSON's included, may hold a NUL."""

from __future__ import annotations

from typing import Any


def storable(value: Any) -> Any:
    """The same JSON value with U+FFFD in the place of each NUL, in its keys too."""
    match value:
        case str():
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        case dict():
            return {storable(key): storable(inner) for key, inner in value.items()}
        case list():
            return [storable(inner) for inner in value]
        case _:
            return value
