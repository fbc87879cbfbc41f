"""The patterns that name their kind: `name:`, `type:`, `re:`, `first:` and `last:`, each with its meaning."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import re2

from shared.domain.module_tree import ModuleTree, enclosing
from shared.domain.near_names import nearest

# RE2 runs in time linear in the text, with the size of the program as a factor: both are bounded.
EXPRESSION_MEMORY = 1 << 20
MAX_INSTRUCTIONS = 2_000


@dataclass(frozen=True)
class Kind:
    """One kind. `text` is what stands behind its colon.

    `fault(text)` says what is wrong with it on any network, or None; `matcher(text, tree)` tells whether a
    parameter's full name is meant; `nothing(text, tree)` says why none is, with the names that come nearest.
    """

    fault: Callable[[str], str | None]
    matcher: Callable[[str, ModuleTree], Callable[[str], bool]]
    nothing: Callable[[str, ModuleTree], str]


def _fault_of_name(text: str) -> str | None:
    return None if text else "'name:' needs some text behind it, as in 'name:conv1'"


def _holds_text(text: str, tree: ModuleTree) -> Callable[[str], bool]:
    return lambda name: text in name


def _no_name(kind: str, text: str, tree: ModuleTree) -> str:
    near = ", ".join(nearest(text, tree.paths_and_names))
    return f"'{kind}:{text}' matches no parameter of this model; the nearest names are {near}"


def _fault_of_type(text: str) -> str | None:
    return None if text else "'type:' needs a class name behind it, as in 'type:BatchNorm2d'"


def _within_class(text: str, tree: ModuleTree) -> Callable[[str], bool]:
    paths = {module.path for module in tree.modules if module.class_name == text}
    return lambda name: enclosing(name, paths) is not None


def _no_class(text: str, tree: ModuleTree) -> str:
    there = {module.class_name for module in tree.modules}
    useful = sorted({module.class_name for module in tree.modules if module.path in tree.holders})
    if text in there:
        problem = f"'type:{text}': the modules of this class have no parameters below them"
    else:
        problem = f"'type:{text}': no module of this model has exactly this class"
    return f"{problem}; the nearest class names are {', '.join(nearest(text, useful))}"


def _fault_of_expression(text: str) -> str | None:
    if not text:
        return r"'re:' needs an expression behind it, as in 're:bn\d\.weight$'"
    try:
        program = _compiled(text)
    except re2.error as error:
        return f"'re:{text}' is no expression that RE2 reads: {_words_of(error)}"
    if program.programsize > MAX_INSTRUCTIONS:
        return (
            f"'re:{text}' comes to {program.programsize:,} instructions in RE2, and at most "
            f"{MAX_INSTRUCTIONS:,} are allowed: write smaller repetitions"
        )
    return None


def _found_by(text: str, tree: ModuleTree) -> Callable[[str], bool]:
    search = _compiled(text).search
    return lambda name: search(name.encode()) is not None


def _compiled(text: str) -> Any:
    """From RE2's own cache where it was compiled before. It takes names as bytes, which spares a decoding."""
    options = re2.Options()
    options.max_mem = EXPRESSION_MEMORY
    options.log_errors = False
    options.never_capture = True
    return re2.compile(text, options)


def _words_of(error: re2.error) -> str:
    words = error.args[0]
    return words.decode(errors="replace") if isinstance(words, bytes) else str(words)


def _fault_of_count(kind: str, text: str) -> str | None:
    if re.fullmatch("[1-9][0-9]*", text):
        return None
    return f"'{kind}:' needs a number of blocks behind it, 1 or more, as in '{kind}:3'; {text!r} is none"


def _within_first(text: str, tree: ModuleTree) -> Callable[[str], bool]:
    return _within_blocks(tree.blocks[: int(text)], int(text))


def _within_last(text: str, tree: ModuleTree) -> Callable[[str], bool]:
    return _within_blocks(tree.blocks[-int(text) :], int(text))


def _within_blocks(blocks: Sequence[str], asked: int) -> Callable[[str], bool]:
    """More blocks than there are mean none: a person who counts wrong is told so."""
    meant = frozenset(blocks) if len(blocks) == asked else frozenset()
    return lambda name: enclosing(name, meant) is not None


def _too_few_blocks(kind: str, text: str, tree: ModuleTree) -> str:
    count = len(tree.blocks)
    if not count:
        return f"'{kind}:{text}' counts blocks, and this model has none besides its head: name the modules"
    ends = tree.blocks[:5] if kind == "first" else tree.blocks[-5:]
    named = f"the {kind} of them: {', '.join(ends)}" if count > len(ends) else ", ".join(tree.blocks)
    return f"'{kind}:{text}' is more than this model has: {count} blocks besides its head ({named})"


KINDS = {
    "name": Kind(_fault_of_name, _holds_text, partial(_no_name, "name")),
    "type": Kind(_fault_of_type, _within_class, _no_class),
    "re": Kind(_fault_of_expression, _found_by, partial(_no_name, "re")),
    "first": Kind(partial(_fault_of_count, "first"), _within_first, partial(_too_few_blocks, "first")),
    "last": Kind(partial(_fault_of_count, "last"), _within_last, partial(_too_few_blocks, "last")),
}
