"""What a running trainer tells of its progress, written under the fence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert
from sqlalchemy.orm import Session

from shared.db.fence import lock_writer
from shared.db.history import record
from shared.db.models import Attempt, Job, Metric
from shared.db.storable import plain
from shared.domain.events import (
    ExtractionLine,
    NoteLine,
    PhaseLine,
    ProgressLine,
    TrainLine,
    ValidationLine,
)

_PHASES = {
    "loading": "The run loads its network and its data.",
    "preflight": "The network is tried on a batch.",
    "probe": "A probe finds which parameters take part in the loss.",
    "training": "The training begins.",
    "extracting": "The extraction begins.",
    "saving": "The result is written.",
}


def write_progress(
    session: Session, *, token: UUID, lines: Sequence[ProgressLine], actor: str, ran_s: float = 0.0
) -> bool:
    """Store lines of progress: metrics, the job's latest figures, events. False: token lost, nothing written.

    `actor` is the node's name, `ran_s` how long the trainer has run so far. Lines about checkpoints and
    shards say nothing here: what they tell of is stored by `add_checkpoint` and `add_artifact`.
    """
    found = lock_writer(session, token)
    if found is None:
        return False
    job, attempt = found
    attempt.ran_s = max(attempt.ran_s, ran_s)
    metrics = [_metric(attempt, line) for line in lines if isinstance(line, TrainLine | ValidationLine)]
    if metrics:
        session.execute(insert(Metric), metrics)
    for line in lines:
        _tell(session, job, line, actor)
    if lines:
        job.progress = {**(job.progress or {}), **_latest(lines)}
    first = next((line for line in lines if isinstance(line, TrainLine | ExtractionLine)), None)
    if first is not None and job.trained_at is None:
        # The node's clock is not the database's: never before the start, never in the future.
        seen = func.greatest(job.started_at, func.to_timestamp(first.time))
        job.trained_at = func.least(func.clock_timestamp(), seen)
    return True


def _metric(attempt: Attempt, line: TrainLine | ValidationLine) -> dict[str, Any]:
    return {
        "job_id": attempt.job_id,
        "attempt_id": attempt.id,
        "kind": line.type,
        "step": line.step,
        "epoch": line.epoch,
        "values": _figures(line),
    }


def _tell(session: Session, job: Job, line: ProgressLine, actor: str) -> None:
    """The event of a line that people should see in the job's history; most lines are none."""
    match line:
        case PhaseLine():
            record(session, job, "phase", _PHASES[line.phase], actor=actor, data={"phase": line.phase})
        case NoteLine():
            note = plain(line)
            data = {"code": note["code"], **note["data"]}
            record(session, job, "note", note["message"], actor=actor, level=line.level, data=data)
        case ValidationLine():
            record(session, job, "metrics", _in_words(line), actor=actor, data=_figures(line))


def _in_words(line: ValidationLine) -> str:
    main = line.main_metric
    figure = f"{main.replace('_', ' ')} {line.metrics[main]:.4f}, " if main else ""
    return f"Epoch {line.epoch + 1}: held-out {figure}loss {line.loss:.4f}"


def _latest(lines: Sequence[ProgressLine]) -> dict[str, Any]:
    """The newest of each kind: `phase`, `train`, `validation`, `extraction`."""
    latest: dict[str, Any] = {}
    for line in lines:
        if isinstance(line, PhaseLine):
            latest["phase"] = line.phase
        elif isinstance(line, TrainLine | ValidationLine | ExtractionLine):
            latest[line.type] = _figures(line)
    return latest


def _figures(line: TrainLine | ValidationLine | ExtractionLine) -> dict[str, Any]:
    return {name: value for name, value in plain(line).items() if name != "type"}
