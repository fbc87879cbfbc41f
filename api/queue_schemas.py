"""The shapes in which the queue leaves the API."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from api.extraction_schemas import ExtractionSummary
from api.schemas import JobSummary, ListOf


class SlotsView(BaseModel):
    """The slots of an accelerator, over all nodes that are not lost."""

    model_config = ConfigDict(from_attributes=True)

    accelerator: str
    n_nodes: int
    free: int = Field(description="may be given out now")
    held: int = Field(description="by jobs, of whatever team")
    dirty: int = Field(description="their job is gone; not free before their node says that it is clean")
    away: int = Field(description="free, on a node that is given no work: it is drained, suspect or silent")
    unhealthy: int = Field(description="free, and not given out, as their GPU is not fit for work")


class QueueView(ListOf[JobSummary | ExtractionSummary]):
    """The jobs that the caller may see, in the order of their turns."""

    n_waiting: int = Field(description="jobs in the queue, of all teams")
    slots: list[SlotsView]
