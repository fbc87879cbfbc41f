"""The table of failures: the documents show it, and no code that the system can write is missing in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.domain.errors import Conflict, Invalid, ThawError
from shared.domain.events import ErrorReport
from shared.domain.failures import FAILURES, code_of, explained, known_code, outcome_of
from shared.domain.job import Outcome

SOURCES = Path(__file__).parents[2]
DOCS = SOURCES / "docs" / "failures.md"
WRITERS = ("worker", "scheduler", "shared/db")
REPORTS = {"ErrorReport", "ended_by", "lost", "_report", "_Why"}
# What is not an error but has a code: a note in the job's history.
NOTES = {"NoteLine", "note"}


def rows() -> list[str]:
    return [
        f"| `{code}` | {failure.meaning} | {'yes' if failure.tried_again else 'no'} | {failure.helps} |"
        for code, failure in FAILURES.items()
    ]


def test_the_documents_show_the_table_as_it_is() -> None:
    shown = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert shown == rows(), "docs/failures.md must hold:\n" + "\n".join(rows())


def test_every_code_that_can_be_written_is_in_the_table() -> None:
    modules = [path for folder in WRITERS for path in sorted((SOURCES / folder).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in modules}
    constants = {name: value for tree in trees.values() for name, value in _constants(tree)}
    found = {code: path.name for path, tree in trees.items() for code in _codes(path, tree, constants)}
    assert len(found) > 30, "it does look"
    assert not {code: name for code, name in found.items() if code not in FAILURES}


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = getattr(node.value, "value", None)
            if isinstance(value, str):
                yield node.targets[0].id, value


def _codes(path: Path, tree: ast.Module, constants: dict[str, str]) -> Iterator[str]:
    """`code=` of any call, the first argument of helpers that take a code there, and class attributes.

    Beside the worker only reports count: what else has a code there answers a request.
    """
    of_worker = path.is_relative_to(SOURCES / "worker")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (_name(node.func) in REPORTS or of_worker):
            if _name(node.func) in NOTES:
                continue
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            if _name(node.func) in {"ended_by", "_report", "_Why"}:
                given += node.args[:1]
            yield from filter(None, (_text(value, constants) for value in given))
        elif isinstance(node, ast.ClassDef) and of_worker:
            for line in node.body:
                if isinstance(line, ast.Assign) and _name(line.targets[0]) in ("code", "default_code"):
                    yield from filter(None, [_text(line.value, constants)])


def _name(node: ast.AST) -> str | None:
    return getattr(node, "id", None) or getattr(node, "attr", None)


def _text(node: ast.AST, constants: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return constants.get(node.id) if isinstance(node, ast.Name) else None


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("out_of_memory", Outcome.FAILED),
        ("host_out_of_memory", Outcome.LOST),
        ("no_progress", Outcome.LOST),
        ("time_limit", Outcome.FAILED),
        ("bad_data", Outcome.FAILED),
        ("disk_full", Outcome.LOST),
        ("a_word_that_nobody_knows", Outcome.FAILED),
    ],
)
def test_the_code_says_whether_a_job_is_tried_again(code: str, outcome: Outcome) -> None:
    assert outcome_of(code) is outcome


def test_a_report_without_a_hint_gets_the_tables() -> None:
    bare = ErrorReport(code="worker_lost", message="gone", time=1.0)
    assert explained(bare).hint == FAILURES["worker_lost"].helps
    assert explained(bare.model_copy(update={"hint": "own words"})).hint == "own words"


def test_what_only_requests_are_refused_with_comes_out_as_what_it_is_in_a_run() -> None:
    assert code_of(Invalid("no", code="warmup_too_long")) == "invalid_value"
    assert code_of(Invalid("no", code="bad_archive")) == "bad_archive"
    assert code_of(Conflict("no")) == "internal"
    assert code_of(ThawError("no", code="made_up")) == known_code("made_up") == "internal"
