"""Texts that Postgres cannot keep are refused before anything is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shared.domain.errors import Invalid


def check_storable(asked: Any) -> None:
    """Raises Invalid, naming the field, for a NUL anywhere in a request."""
    for param, text in _texts(asked, ""):
        if "\0" in text:
            raise Invalid("a text must not hold the character NUL", param=param)


def _texts(value: Any, param: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield param, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            path = f"{param}.{key}" if param else key
            yield path, key
            yield from _texts(inner, path)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _texts(inner, f"{param}[{place}]")
