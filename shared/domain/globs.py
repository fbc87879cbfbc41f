"""Globs over dotted names: `*` and `?` stay within one part, `**` spans none or more."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import cache


def glob_matcher(pattern: str, *, with_what_is_below: bool) -> Callable[[str], bool]:
    """Whether a name equals the pattern or, `with_what_is_below`, has a dotted prefix that does.

    Follows all readings of the pattern at once, part by part, so that none is slow. Common prefixes are kept.
    """
    parts = re.sub(r"\*\*(\.\*\*)+", "**", pattern).split(".")
    fits = [None if part == "**" else re.compile(translate(part.replace("[", "[[]"))).match for part in parts]
    end = len(parts)

    def closed(positions: set[int]) -> frozenset[int]:
        """With what is reached over a '**' that spans no part; no two of them stand in a row."""
        return frozenset(positions | {i + 1 for i in positions if i < end and fits[i] is None})

    reached: dict[str, frozenset[int]] = {"": closed({0})}

    def positions_after(prefix: str) -> frozenset[int]:
        known = reached.get(prefix)
        if known is None:
            before, _, part = prefix.rpartition(".")
            known = reached[prefix] = step(positions_after(before), part)
        return known

    @cache
    def step(positions: frozenset[int], part: str) -> frozenset[int]:
        if with_what_is_below and end in positions:
            return frozenset({end})
        after = set()
        for i in positions - {end}:
            fit = fits[i]
            if fit is None:
                after.add(i)
            elif fit(part):
                after.add(i + 1)
        return closed(after)

    return lambda name: end in positions_after(name)
