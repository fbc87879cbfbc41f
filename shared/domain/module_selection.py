"""Which modules of a network are meant: exact paths, and globs over paths.

layer4          that module itself, not what is below it
layer*          `*` and `?` stay within one dotted part
layer4.**.bn1   `**` spans none or more parts
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.domain.activations import RESERVED
from shared.domain.errors import Invalid
from shared.domain.globs import glob_matcher
from shared.domain.module_tree import ModuleTree
from shared.domain.near_names import nearest

MAX_MODULES = 64
# A network calls what they hold, never them.
NEVER_CALLED = frozenset({"ModuleList", "ModuleDict", "ParameterList", "ParameterDict"})

ModulePattern = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=300)]
ModulePatterns = Annotated[list[ModulePattern], Field(min_length=1, max_length=MAX_MODULES)]


def select_modules(patterns: Sequence[str], tree: ModuleTree, param: str) -> list[str]:
    """The paths that `patterns` mean, each once, in the network's order.

    Raises Invalid, naming the pattern's place below `param`, where one means no module that could be called,
    and where they mean more than MAX_MODULES.
    """
    known = [path for path in _paths(tree) if path not in RESERVED]
    wanted: set[str] = set()
    for place, pattern in enumerate(patterns):
        wanted |= _matched(pattern, tree, known, f"{param}[{place}]")
    if len(wanted) > MAX_MODULES:
        raise Invalid(
            f"these are {len(wanted)} modules, and one job saves at most {MAX_MODULES}: name fewer of them",
            param=param,
            code="too_many_modules",
        )
    return [path for path in known if path in wanted]


def _matched(pattern: str, tree: ModuleTree, known: Sequence[str], param: str) -> set[str]:
    if "*" in pattern or "?" in pattern:
        _check_glob(pattern, param)
        fits = glob_matcher(pattern, with_what_is_below=False)
        found = {path for path in known if fits(path) and not _is_container(path, tree)}
        problem = f"{pattern!r} matches no module of this network that is ever called"
    else:
        found = {pattern} & set(known)
        problem = f"this network has no module {pattern!r}"
        if found and _is_container(pattern, tree):
            kind, found = tree.by_path[pattern].class_name, set()
            problem = f"{pattern!r} is a {kind}, which is never called itself"
    if not found:
        callable_paths = [path for path in known if not _is_container(path, tree)]
        near = ", ".join(nearest(pattern, callable_paths))
        raise Invalid(f"{problem}; the nearest are {near}", param=param, code="unknown_module")
    return found


def _paths(tree: ModuleTree) -> Iterator[str]:
    """Every module's path but the root's, and those under which a shared module stands a second time."""
    own = [module.path for module in tree.modules if module.path]
    shared = [alias.rpartition(".")[0] for alias in tree.aliases]
    yield from dict.fromkeys([*own, *(path for path in shared if path)])


def _is_container(path: str, tree: ModuleTree) -> bool:
    module = tree.by_path.get(path)
    return module is not None and module.class_name in NEVER_CALLED


def _check_glob(pattern: str, param: str) -> None:
    parts = pattern.split(".")
    if not all(parts) or any("**" in part and part != "**" for part in parts):
        raise Invalid(
            f"{pattern!r}: write names with one dot between them, and '**' alone between dots",
            param=param,
            code="bad_pattern",
        )
