"""Texts with a NUL, which Postgres has in no text, JSON's included: how they are kept, and compared."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel


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


def plain(shape: BaseModel) -> dict[str, Any]:
    """As JSON that Postgres takes: NaN and infinity, which it refuses, become null, and NUL is replaced."""
    found: dict[str, Any] = storable(json.loads(shape.model_dump_json()))
    return found


def comparable(text: str) -> str:
    """The text as it can be compared with stored ones: one with a NUL equals none of them."""
    return text if "\0" not in text else ""
