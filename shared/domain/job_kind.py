"""What a job does. Both kinds wait in one queue, and run, stop and end in the same way."""

from __future__ import annotations

from enum import StrEnum


class JobKind(StrEnum):
    """The kind stands in the paths of the API and, shortened, at the start of a job's id."""

    FINE_TUNING = "fine_tuning"  # trains a network; its result is a model
    FEATURE_EXTRACTION = "feature_extraction"  # runs one as it is; its result is activations

    @property
    def id_start(self) -> str:
        """What the ids of its jobs start with, before the dash."""
        return {JobKind.FINE_TUNING: "ftjob", JobKind.FEATURE_EXTRACTION: "fxjob"}[self]

    @property
    def noun(self) -> str:
        """As a sentence calls it."""
        return {JobKind.FINE_TUNING: "fine-tuning", JobKind.FEATURE_EXTRACTION: "feature-extraction"}[self]

    @classmethod
    def of(cls, job_id: str) -> JobKind:
        """The kind that an id tells. Raises ValueError for an id that no job has."""
        start = job_id.partition("-")[0]
        for kind in cls:
            if start == kind.id_start:
                return kind
        raise ValueError(f"{job_id!r} is no id of a job")
