"""The shapes of feature extractions that leave the API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from api.schemas import AnyJob, AttemptView


class ModuleToSave(BaseModel):
    """A module that was asked for, and what is saved of it for each sample."""

    path: str
    shape: list[int] | None = Field(description="null where only a forward of the network can tell")


class ExtractionSeconds(BaseModel):
    """How long it was queued, starting (to its first samples) and extracting; until now for what goes on."""

    queued: float
    starting: float | None
    extracting: float | None


class ExtractionSummary(AnyJob):
    """A feature extraction as lists show it."""

    object: Literal["feature_extraction.job"] = "feature_extraction.job"
    input_file: str
    modules: list[ModuleToSave]
    output: str
    pool: str
    dtype: str
    batch_size: int
    estimated_bytes: int | None = Field(description="of all samples; null where a shape is not known yet")
    timings: ExtractionSeconds


class ExtractionView(ExtractionSummary):
    """A feature extraction with everything that is known of it."""

    attempts: list[AttemptView]
    result: dict[str, Any] | None = Field(description="result.json, less what was asked for")
