"""What a demo's jobs came to: read from each job and its result.json, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from thaw.client import Thaw
from thaw.shapes import Job


@dataclass(frozen=True)
class Outcome:
    """A job as demo-result.json tells of it. What a job without a result cannot tell is None."""

    name: str
    id: str
    status: str
    error: str | None
    accuracy: float | None  # None: not a classifier, or no validation data
    metrics: dict[str, float]
    main_metric: str | None
    frozen_parameters: int | None
    trainable_parameters: int | None
    frozen_unchanged: bool | None  # None: nothing was frozen
    find_unused_parameters: bool | None
    find_unused_reason: str | None
    seconds: dict[str, float]
    artifacts: str | None

    @property
    def is_good(self) -> bool:
        return self.status == "succeeded" and self.frozen_unchanged is not False

    @property
    def held_out(self) -> str:
        """The task's main figure by name; nothing where there is none."""
        name = self.main_metric
        return f"{name.replace('_', ' ')} {self.metrics[name]:.4f}" if name else ""


def bring_home(thaw: Thaw, name: str, job: Job, folder: Path) -> Outcome:
    """Download the job's artifacts to `folder` and read what it came to."""
    for artifact in list(thaw.jobs.artifacts(job.id)):
        thaw.jobs.download(job.id, artifact, folder)
    result = read_result(folder / "result.json") if job.status == "succeeded" else {}
    evaluation = result.get("evaluation") or {}
    unused = result.get("find_unused_parameters") or {}
    return Outcome(
        name=name,
        id=job.id,
        status=job.status,
        error=job.why_failed or None,
        accuracy=evaluation.get("accuracy"),
        metrics=evaluation.get("metrics", {}),
        main_metric=evaluation.get("main_metric"),
        frozen_parameters=result.get("n_frozen"),
        trainable_parameters=result.get("n_trainable"),
        frozen_unchanged=_is_unchanged(result.get("frozen_proof")),
        find_unused_parameters=unused.get("value"),
        find_unused_reason=unused.get("reason"),
        seconds={part: took for part, took in job.raw["timings"].items() if took is not None},
        artifacts=str(folder) if result else None,
    )


def read_result(path: Path) -> dict[str, Any]:
    """A job's result.json."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def write_json(outcomes: Iterable[Outcome], path: Path) -> None:
    """demo-result.json."""
    path.write_text(json.dumps({"jobs": [asdict(outcome) for outcome in outcomes]}, indent=2) + "\n")


def print_tables(outcomes: Iterable[Outcome], console: Console) -> None:
    """The figures, then why DDP was told what it was told and where the artifacts lie."""
    outcomes = list(outcomes)
    caption = "Held-out: the last epoch, on scans that no job was trained on and that picked nothing."
    figures = Table(
        box=SIMPLE_HEAD, caption=caption, caption_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for column in ("job", "status"):
        figures.add_column(column, no_wrap=True)
    right = (
        "frozen",
        "trained",
        "frozen part unchanged",
        "held out",
        "queued",
        "starting",
        "training",
    )
    for column in right:
        figures.add_column(column, justify="right", overflow="fold")
    for o in outcomes:
        times = (o.seconds.get(part) for part in ("queued", "starting", "training"))
        figures.add_row(
            o.name,
            o.status,
            _number(o.frozen_parameters),
            _number(o.trainable_parameters),
            _unchanged(o),
            o.held_out,
            *("" if time is None else f"{time:.1f} s" for time in times),
        )
    console.print(figures)
    reasons = Table("job", "find_unused_parameters", "why", box=SIMPLE_HEAD, pad_edge=False)
    reasons.add_column("artifacts", overflow="fold")
    for o in outcomes:
        reasons.add_row(o.name, _word(o.find_unused_parameters), o.find_unused_reason or o.error, o.artifacts)
    console.print(reasons)


def _is_unchanged(proof: dict[str, Any] | None) -> bool | None:
    """Read from the two hashes themselves; None where there was nothing to keep still."""
    if not proof or not proof["n_parameters"] + proof["n_buffers"]:
        return None
    return bool(proof["before"] == proof["after"])


def _unchanged(outcome: Outcome) -> str:
    if outcome.frozen_unchanged is None:
        return "none frozen" if outcome.status == "succeeded" else ""
    return "yes" if outcome.frozen_unchanged else "NO"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _word(value: bool | None) -> str:
    return "" if value is None else str(value)
