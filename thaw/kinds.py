"""The kinds of jobs, as their ids tell them, and where each kind is on the server."""

from __future__ import annotations

from enum import StrEnum
from urllib.parse import quote

from thaw.errors import UsageError


class Kind(StrEnum):
    """What a job does."""

    FINE_TUNING = "fine_tuning"  # ftjob-...
    FEATURE_EXTRACTION = "feature_extraction"  # fxjob-...

    @property
    def path(self) -> str:
        """Where the jobs of this kind are."""
        return f"/v1/{self}/jobs"


def kind_of(job_id: str) -> Kind:
    """The kind that an id tells; an id of no known kind is for the server to refuse."""
    return Kind.FEATURE_EXTRACTION if job_id.startswith("fxjob-") else Kind.FINE_TUNING


def path_of(job_id: str) -> str:
    """Where one job is. Raises UsageError for an id that is empty, which would lead to all jobs."""
    if not job_id:
        raise UsageError("the job's id is empty; `thaw list` has the ids")
    return f"{kind_of(job_id).path}/{quote(job_id, safe='')}"


def training_path(job_id: str) -> str:
    """Where a job is that trains. Raises UsageError for another."""
    if kind_of(job_id) is not Kind.FINE_TUNING:
        raise UsageError(f"{job_id} is a feature extraction: it trains nothing, and measures nothing")
    return path_of(job_id)
