"""The patterns of the freeze language: each becomes a function from a parameter's name to yes or no.

No matcher backtracks, so none is slow on any pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from shared.domain.errors import Invalid
from shared.domain.freeze_kinds import KINDS
from shared.domain.globs import glob_matcher
from shared.domain.module_tree import ModuleTree, enclosing
from shared.domain.near_names import nearest

Matcher = Callable[[str], bool]

HEAD = "@head"
_KIND = re.compile(r"([a-z_]+):(.*)", re.DOTALL)


def check_pattern(pattern: str, param: str) -> None:
    """Refuses a pattern that means nothing on any network. `param` says where in the request it stands."""
    kind, text = _parted(pattern)
    if kind is not None:
        fault = KINDS[kind].fault(text) if kind in KINDS else _unknown_kind(kind)
    else:
        fault = _fault_of_path(pattern)
    if fault:
        raise Invalid(fault, param=param)


def compile_pattern(pattern: str, tree: ModuleTree) -> Matcher:
    """The matcher of a checked pattern over the parameter names of `tree`."""
    kind, text = _parted(pattern)
    if kind is not None:
        return KINDS[kind].matcher(text, tree)
    if pattern == HEAD:
        return _below(tree.head)
    if _is_glob(pattern):
        return glob_matcher(pattern, with_what_is_below=True)
    return _below({pattern})


def matches_nothing(pattern: str, tree: ModuleTree) -> str:
    """Why a checked pattern matches no parameter of `tree`, and which names come nearest."""
    kind, text = _parted(pattern)
    if kind is not None:
        return KINDS[kind].nothing(text, tree)
    if pattern == HEAD:
        problem = "this model has no known head; name the module"
    elif pattern in tree.by_path:
        problem = f"{pattern!r} is a module without parameters, so there is nothing to decide"
    else:
        problem = f"{pattern!r} matches no parameter of this model"
    return f"{problem}; the nearest names are {', '.join(nearest(pattern, tree.paths_and_names))}"


def is_searched(pattern: str) -> bool:
    """Whether it takes a search in every name: a glob or a regular expression."""
    return _parted(pattern)[0] == "re" or _is_glob(pattern)


def _parted(pattern: str) -> tuple[str | None, str]:
    """(kind, text) of a pattern with a kind in front; else (None, the pattern)."""
    parted = _KIND.fullmatch(pattern)
    return (parted[1], parted[2]) if parted else (None, pattern)


def _is_glob(pattern: str) -> bool:
    return _parted(pattern)[0] is None and ("*" in pattern or "?" in pattern)


def _below(paths: Collection[str]) -> Matcher:
    return lambda name: enclosing(name, paths) is not None


def _unknown_kind(kind: str) -> str:
    known = ", ".join(f"{name}:" for name in KINDS)
    return f"'{kind}:' is no kind of pattern; known are {known}, a path, a glob and {HEAD}"


def _fault_of_path(pattern: str) -> str | None:
    parts = pattern.split(".")
    if pattern.startswith("@") and pattern != HEAD:
        return f"{pattern!r} is unknown; the one name with '@' is {HEAD!r}"
    if not all(parts):
        return f"{pattern!r} has an empty part: write names with one dot between them"
    if any("**" in part and part != "**" for part in parts):
        return f"in {pattern!r}, '**' must stand alone between dots, as in 'layer4.**.bn1'"
    return None
