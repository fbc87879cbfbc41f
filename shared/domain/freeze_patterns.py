"""The patterns of the freeze language: each becomes a function from a parameter's name to yes or no.

No matcher backtracks, so none is slow on any pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from fnmatch import translate
from functools import cache
from heapq import nlargest

from shared.domain.errors import Invalid, NotSupportedYet
from shared.domain.module_tree import ModuleTree, is_below

Matcher = Callable[[str], bool]

HEAD = "@head"
NOT_YET = ("type", "re", "first", "last")
_KIND = re.compile(r"([a-z_]+):(.*)", re.DOTALL)


def check_pattern(pattern: str, param: str) -> None:
    """Refuses a pattern that means nothing on any network. `param` says where in the request it stands."""
    kind = _KIND.fullmatch(pattern)
    if kind:
        _check_kind(kind[1], kind[2], param)
    elif pattern.startswith("@") and pattern != HEAD:
        raise Invalid(f"{pattern!r} is unknown; the one name with '@' is {HEAD!r}", param=param)
    elif not all(pattern.split(".")):
        raise Invalid(f"{pattern!r} has an empty part: write names with one dot between them", param=param)
    elif any("**" in part and part != "**" for part in pattern.split(".")):
        raise Invalid(
            f"in {pattern!r}, '**' must stand alone between dots, as in 'layer4.**.bn1'", param=param
        )


def compile_pattern(pattern: str, tree: ModuleTree) -> Matcher:
    """The matcher of a checked pattern over the parameter names of `tree`."""
    if pattern == HEAD:
        return lambda name: any(is_below(name, path) for path in tree.head)
    kind = _KIND.fullmatch(pattern)
    if kind:
        text = kind[2]
        return lambda name: text in name
    if is_glob(pattern):
        return _glob_matcher(pattern)
    return lambda name: is_below(name, pattern)


def is_glob(pattern: str) -> bool:
    return not _KIND.fullmatch(pattern) and ("*" in pattern or "?" in pattern)


def nearest(wanted: str, names: Iterable[str], count: int = 5) -> list[str]:
    """The `count` names most like `wanted`, best first: sifted by common letter pairs, then ordered."""
    pairs = _letter_pairs(wanted)
    sifted = nlargest(8 * count, names, key=lambda name: _overlap(pairs, _letter_pairs(name)))
    likeness = SequenceMatcher(b=wanted, autojunk=False)

    def ratio(name: str) -> float:
        likeness.set_seq1(name)
        return likeness.ratio()

    return nlargest(count, sifted, key=ratio)


def _check_kind(kind: str, text: str, param: str) -> None:
    if kind in NOT_YET:
        raise NotSupportedYet(f"patterns of the kind '{kind}:' are not supported yet", param=param)
    if kind != "name":
        raise Invalid(
            f"'{kind}:' is no kind of pattern; known are name:, a path, a glob and {HEAD}", param=param
        )
    if not text:
        raise Invalid("'name:' needs some text behind it, as in 'name:conv1'", param=param)


def _glob_matcher(pattern: str) -> Matcher:
    """Follows all readings of the pattern at once, part by dotted part, and remembers common prefixes."""
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
        if end in positions:
            return frozenset({end})
        after = set()
        for i in positions:
            fit = fits[i]
            if fit is None:
                after.add(i)
            elif fit(part):
                after.add(i + 1)
        return closed(after)

    return lambda name: end in positions_after(name)


def _letter_pairs(text: str) -> set[str]:
    return {text[i : i + 2] for i in range(len(text) - 1)} or {text}


def _overlap(first: set[str], second: set[str]) -> float:
    return len(first & second) / (len(first) + len(second))
