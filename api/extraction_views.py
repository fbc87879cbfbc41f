"""From rows of feature extractions to the shapes that leave the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.extraction_schemas import ExtractionSeconds, ExtractionSummary, ExtractionView, ModuleToSave
from api.job_fields import common_fields, seconds_by_part
from api.schemas import JobSummary, JobView
from api.views import attempt_view, job_summary, job_view
from shared.db.jobs import Try
from shared.db.models import Job
from shared.domain.extraction import ResolvedExtraction
from shared.domain.job_kind import JobKind

_LEFT_OUT_OF_RESULT = frozenset({"spec", "job_id"})


def extraction_summary(job: Job) -> ExtractionSummary:
    """An extraction as lists show it."""
    return ExtractionSummary(**_fields(job))


def extraction_view(job: Job, attempts: Sequence[Try]) -> ExtractionView:
    """An extraction with its attempts and result."""
    result = job.result or {}
    return ExtractionView(
        **_fields(job),
        attempts=[attempt_view(attempt) for attempt in attempts],
        result={k: v for k, v in result.items() if k not in _LEFT_OUT_OF_RESULT} or None,
    )


def summary_of_kind(job: Job) -> JobSummary | ExtractionSummary:
    """A job as the list of its kind shows it."""
    return job_summary(job) if job.kind is JobKind.FINE_TUNING else extraction_summary(job)


def view_of_kind(job: Job, attempts: Sequence[Try]) -> JobView | ExtractionView:
    """A job as its kind shows it, with everything that is known of it."""
    return job_view(job, attempts) if job.kind is JobKind.FINE_TUNING else extraction_view(job, attempts)


def _fields(job: Job) -> dict[str, Any]:
    resolved = ResolvedExtraction.model_validate(job.resolved)
    wanted = resolved.wanted
    queued, starting, extracting = seconds_by_part(job)
    return {
        **common_fields(job),
        "input_file": job.training_file_id,
        "modules": [ModuleToSave(path=path, shape=resolved.shapes.get(path)) for path in wanted.modules],
        "output": wanted.output,
        "pool": wanted.pool,
        "dtype": wanted.dtype,
        "batch_size": resolved.batch_size,
        "estimated_bytes": resolved.estimated_bytes,
        "timings": ExtractionSeconds(queued=queued, starting=starting, extracting=extracting),
    }
