"""The shapes in which usage leaves the API. Times are Unix seconds, days are of UTC."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from shared.domain.usage import Group


class NamedView(BaseModel):
    """Something with an id, and the name that people call it by."""

    id: str
    name: str


class UsageRow(BaseModel):
    """What one group held. What was not grouped by is null.

    A slot is a GPU, or a process on a CPU node; a slot-hour is one of them held for an hour.
    """

    team: NamedView | None = None
    person: NamedView | None = Field(None, description="the API key that submitted the jobs")
    model: str | None = None
    day: str | None = Field(None, description="2026-11-25")
    accelerator: str = Field(description="what the slots were: cpu, or a device's name")
    slot_hours: float
    wasted_slot_hours: float = Field(
        description="of them, those of tries that led to no result and to no checkpoint that was gone on from"
    )
    n_jobs: int
    n_attempts: int


class UsageView(BaseModel):
    """What was held between `start` and `end`, in the order of the groups."""

    object: Literal["usage"] = "usage"
    start: int
    end: int
    group_by: list[Group]
    data: list[UsageRow]
