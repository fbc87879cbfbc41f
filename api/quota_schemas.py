"""What a team is owed and has, as it leaves the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field

from shared.domain.quota import Quota
from shared.domain.team_limits import Limits


class QuotaView(BaseModel):
    """Of one accelerator type, in slots. Where there is no quota, `nominal_quota` is null."""

    accelerator: str
    nominal_quota: int | None
    borrowing_limit: int | None
    lending_limit: int | None
    held: int = Field(description="by the team's jobs just now")
    borrowed: int = Field(description="of these beyond the nominal quota")
    held_on_average: float = Field(description="what it held until now, decayed; counts in its fair share")

    @classmethod
    def of(
        cls, accelerator: str, quota: Quota | None, held: Mapping[str, int], average: Mapping[str, float]
    ) -> QuotaView:
        now = held.get(accelerator, 0)
        return cls(
            accelerator=accelerator,
            nominal_quota=quota.nominal if quota else None,
            borrowing_limit=quota.borrowing_limit if quota else None,
            lending_limit=quota.lending_limit if quota else None,
            held=now,
            borrowed=max(0, now - (quota.nominal if quota else 0)),
            held_on_average=round(average.get(accelerator, 0.0), 3),
        )


class TeamQuotaView(BaseModel):
    """A team's quotas, its weight among those that borrow, its limits, and what it has of each."""

    object: Literal["team.quota"] = "team.quota"
    team: str
    team_id: str
    weight: float
    quotas: list[QuotaView]
    limits: Limits
    waiting_jobs: int
    stored_bytes: int
