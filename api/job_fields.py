"""What jobs of every kind show of themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from api.schemas import JobError, unix, unix_or_none
from shared.db.models import Job
from shared.domain.job import JobState, openai_status


def common_fields(job: Job) -> dict[str, Any]:
    """The fields of `AnyJob`, and so of any kind's summary."""
    spec, resolved = job.spec, job.resolved
    return {
        "id": job.id,
        "created_at": unix(job.created_at),
        "finished_at": unix_or_none(job.finished_at),
        "estimated_finish": _estimated_finish(job),
        "model": job.model,
        "organization_id": job.team_id,
        "status": openai_status(job.state),
        "phase": job.state,
        "stop_reason": job.stop_reason,
        "wait_reason": job.wait_reason,
        "weights": _weights(resolved["weights"]),
        "seed": resolved["seed"],
        "user_provided_suffix": spec["suffix"],
        "metadata": spec["metadata"],
        "class_names": resolved["class_names"],
        "preprocessing": resolved["preprocessing"],
        "resources": spec["resources"],
        "priority": job.priority,
        "max_duration_s": resolved["max_duration_s"],
        "progress": job.progress,
        "error": _error(job.error),
        "changes": job.changes,
        "n_events": job.n_events,
    }


def seconds_by_part(job: Job) -> tuple[float, float | None, float | None]:
    """How long it was queued, starting, and at its work; until now for what goes on, None before that."""
    now = job.finished_at or datetime.now(UTC)
    queued_until = job.dispatched_at or now
    works_from = job.trained_at
    return (
        _between(job.created_at, queued_until),
        _between(job.dispatched_at, works_from or now) if job.dispatched_at else None,
        _between(works_from, now) if works_from else None,
    )


def _weights(weights: dict[str, Any]) -> str | None:
    named: str | None = weights.get("name") or weights.get("file_id") or weights.get("job_id")
    return named or "none"


def _error(error: dict[str, Any] | None) -> JobError | None:
    if not error:
        return None
    return JobError(
        code=str(error.get("code", "internal")),
        message=str(error.get("message", "")),
        param=error.get("param"),
        hint=error.get("hint"),
        traceback=error.get("traceback"),
        rank=error.get("rank"),
        node=error.get("node"),
        attempt=error.get("attempt"),
    )


def _between(start: datetime, end: datetime) -> float:
    return round(max(0.0, (end - start).total_seconds()), 3)


def _estimated_finish(job: Job) -> int | None:
    progress = job.progress or {}
    figures = progress.get("extraction") or progress.get("train") or {}
    if job.state is not JobState.RUNNING or figures.get("eta_s") is None:
        return None
    return int(figures.get("time", datetime.now(UTC).timestamp()) + figures["eta_s"])
