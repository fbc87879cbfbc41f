"""No code gets round a job's history: its state changes where an event is written, and nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shared", "api", "scheduler", "worker", "devstack")
# `transition` is the setter of all states; `move` alone calls it for jobs, and `add_job` begins a job's life.
SETTERS = {"shared/domain/job.py:transition", "shared/db/history.py:move", "shared/db/jobs.py:add_job"}
ENGINE = ROOT / "worker" / "training"  # which knows no database; its `state` is an optimizer's
_WRITES_JOBS = re.compile(r"\b(update|insert\s+into)\s+jobs\b", re.IGNORECASE)
RECORDERS = {"move", "record", "record_created"}


def ways_round(path: str, source: str) -> Iterator[str]:
    """Whatever in a module changes the state of a job, or where it is going, and writes no event."""
    for name, function in _functions(ast.parse(source)):
        place = f"{path}:{name}"
        for node in _own_nodes(function):
            where = f"{place}, line {getattr(node, 'lineno', 0)}"
            if _assigns(node, "state") and place not in SETTERS:
                yield f"{where}: assigns a state"
            if _assigns(node, "stop_reason") and not _calls(function) & RECORDERS and place not in SETTERS:
                yield f"{where}: assigns a stop_reason and writes no event"
            if _moves_a_job(node) and place not in SETTERS:
                yield f"{where}: moves a job by `transition`, not by `move`"
            if _updates_jobs(node) and {"state", "stop_reason"} & (_names_in(function) | _words_in(node)):
                yield f"{where}: updates jobs and names a state"


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every function by its name, and the module's own level."""
    yield "<module>", tree
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """What stands in a function, less what stands in the functions inside it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own_nodes(child)


def _assigns(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Call) and _called(node) == "setattr":
        return any(isinstance(given, ast.Constant) and given.value == name for given in node.args)
    if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) or _is_of_a_node(node.value):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    inner = (inner for target in targets for inner in ast.walk(target))
    stored = (one for one in inner if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store))
    return any(one.attr == name for one in stored)


def _is_of_a_node(value: ast.expr | None) -> bool:
    """Hosts have states too, which are no job's."""
    text = ast.unparse(value) if value is not None else ""
    return "NodeState." in text and "JobState." not in text


def _moves_a_job(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and _called(node) == "transition"):
        return False
    return any("job" in ast.unparse(given).lower() for given in node.args)


def _updates_jobs(node: ast.AST) -> bool:
    """SQL that writes jobs past the ORM."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return bool(_WRITES_JOBS.search(node.value))
    if not isinstance(node, ast.Call):
        return False
    is_sql = _called(node) in {"update", "insert", "upsert"} and bool(node.args)
    return is_sql and ast.unparse(node.args[0]).startswith("Job") and ast.unparse(node.args[0]) != "JobState"


def _names_in(function: ast.AST) -> set[str]:
    """Keyword arguments and keys of dicts: where SQL is told which columns to write."""
    nodes = list(_own_nodes(function))
    keywords = {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}
    keys = {
        key.value
        for node in nodes
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }
    return keywords | keys


def _words_in(node: ast.AST) -> set[str]:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return set(re.findall(r"\w+", node.value)) if is_text else set()


def _calls(function: ast.AST) -> set[str]:
    return {_called(node) for node in _own_nodes(function) if isinstance(node, ast.Call)}


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def test_every_change_of_a_jobs_state_writes_its_event() -> None:
    modules = [
        path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if ENGINE not in path.parents
    ]
    assert len(modules) > 100
    found = [
        way for path in modules for way in ways_round(str(path.relative_to(ROOT)), path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "body",
    [
        "job.state = JobState.QUEUED",
        "self.job.state = 'queued'",
        "job.state, x = JobState.QUEUED, 1",
        "setattr(job, 'state', JobState.QUEUED)",
        "transition(job, JobState.QUEUED)",
        "transition(row, JobState.QUEUED)",
        "session.execute(update(Job).where(Job.id == i).values(state=JobState.QUEUED))",
        "session.execute(update(Job), [{'id': i, 'state': JobState.QUEUED}])",
        "session.execute(update(Job).values({'state': JobState.QUEUED}))",
        "job.stop_reason = StopReason.PAUSE",
        "session.execute(text('update jobs set state = 1'))",
    ],
)
def test_each_way_round_is_seen(body: str) -> None:
    assert list(ways_round("shared/db/jobs.py", f"def somewhere(job, row):\n    {body}\n"))


@pytest.mark.parametrize(
    "body",
    [
        "transition(slot, SlotState.FREE)",
        "node.state = NodeState.DRAINING",
        "session.execute(update(Attempt).values(state=AttemptState.RUNNING))",
        "session.execute(update(Job).values(wait_reason=None))",
        "move(session, job, JobState.QUEUED, actor=a, reason=r)",
        "record(session, job, 'note', m, actor=a); job.stop_reason = StopReason.CANCEL",
        "if job.state is JobState.QUEUED: pass",
    ],
)
def test_what_is_no_way_round_is_let_alone(body: str) -> None:
    assert list(ways_round("shared/db/jobs.py", f"def somewhere(job, row):\n    {body}\n")) == []
