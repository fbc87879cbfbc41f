"""Variables that look like settings and name none: a misspelt one would do nothing, in silence."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from shared.domain.near_names import nearest

PREFIX = "THAW_"
FOR_THE_CLIENT = frozenset({"THAW_URL", "THAW_API_KEY", "THAW_CACHE"})
"""What the `thaw` command reads: it may stand in the same environment, and no server looks at it."""
_NEAR = 3


def unknown_names(environment: Iterable[str], fields: Collection[str]) -> str | None:
    """What to say of the variables that begin as settings do and name none; None: there are no such ones.

    `fields` are those of the settings. Like these, names count in whatever case they are written.
    """
    settings = {f"{PREFIX}{field.upper()}" for field in fields}
    seen = sorted(name for name in environment if name.upper().startswith(PREFIX))
    unknown = [name for name in seen if name.upper() not in settings | FOR_THE_CLIENT]
    return "; ".join(_in_words(name, settings) for name in unknown) or None


def _in_words(name: str, settings: Collection[str]) -> str:
    near = " or ".join(nearest(name.upper(), sorted(settings), _NEAR))
    return f"the variable {name} names no setting, so it would do nothing: did you mean {near}?"
