"""What one team's jobs may ask for, and what is said to one that asks for more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import Field, model_validator

from shared.domain.cluster import accelerator_fits
from shared.domain.errors import Conflict, Invalid, TooLarge
from shared.domain.quota import Quota, TeamShare
from shared.domain.spec import DurationS, Resources, Strict

Accelerator = Annotated[str, Field(min_length=1, max_length=200)]
KeptDays = Annotated[int, Field(ge=1, le=36_500)]


class Limits(Strict):
    """Of one team. What is null limits nothing."""

    max_queued_jobs: int | None = Field(
        None, ge=0, le=1_000_000, description="jobs that wait, for slots or for another job's model"
    )
    max_storage_bytes: int | None = Field(None, ge=0, lt=2**63, description="of files and results together")
    max_duration_s: DurationS | None = Field(None, description="of one job's running, over all its tries")
    max_devices: int | None = Field(None, ge=1, le=2**20, description="of one job, over all its nodes")
    accelerators: list[Accelerator] | None = Field(
        None, min_length=1, max_length=100, description="the only accelerator types that its jobs run on"
    )
    keep_jobs_days: KeptDays | None = Field(
        None,
        description="a job is deleted so long after it was over, and after the last that went on from it",
    )
    keep_files_days: KeptDays | None = Field(
        None, description="a file is deleted so long after its upload, and after the last job that read it"
    )


class QuotaSpec(Strict):
    """A team's quota of one accelerator type, in slots; Kueue's words."""

    accelerator: Accelerator = Field(description="the type, as nodes name it: cpu, NVIDIA H100 80GB HBM3")
    nominal_quota: int = Field(ge=0, le=2**20, description="guaranteed: who borrowed it hands it back")
    borrowing_limit: int | None = Field(
        None, ge=0, le=2**20, description="most that is borrowed beyond it; null: whatever is idle"
    )
    lending_limit: int | None = Field(
        None, ge=0, le=2**20, description="most of it that others may borrow; null: all that is idle"
    )

    @model_validator(mode="after")
    def _lends_its_own(self) -> Self:
        if self.lending_limit is not None and self.lending_limit > self.nominal_quota:
            raise ValueError(
                f"lending_limit {self.lending_limit} is more than the nominal_quota of {self.nominal_quota}; "
                "give at most that, or null to lend all that is idle"
            )
        return self

    @property
    def quota(self) -> Quota:
        return Quota(self.nominal_quota, self.borrowing_limit, self.lending_limit)


class TermsSpec(Strict):
    """The body of PUT /v1/teams/TEAM/quota: all that is to hold. What is left out limits nothing."""

    weight: float = Field(1.0, gt=0, le=1_000_000, description="its part of what is borrowed, against others")
    quotas: list[QuotaSpec] = Field(default_factory=list, max_length=100)
    limits: Limits = Field(default_factory=Limits)

    @model_validator(mode="after")
    def _one_quota_a_type(self) -> Self:
        names = [quota.accelerator for quota in self.quotas]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"quotas has {twice!r} twice; give each accelerator one quota")
        return self

    def terms(self, known: set[str]) -> TeamTerms:
        """The same as what is kept. Raises Invalid for accelerators that are not among the known ones."""
        named = {f"quotas[{i}].accelerator": quota.accelerator for i, quota in enumerate(self.quotas)}
        for i, type in enumerate(self.limits.accelerators or ()):
            named[f"limits.accelerators[{i}]"] = type
        check_accelerators(named, known)
        share = TeamShare(self.weight, {quota.accelerator: quota.quota for quota in self.quotas})
        return TeamTerms(share, self.limits)


@dataclass(frozen=True)
class TeamTerms:
    """All that an operator has set for a team."""

    share: TeamShare = field(default_factory=TeamShare)
    limits: Limits = field(default_factory=Limits)


def check_asked(limits: Limits, asked: Resources, max_duration_s: int | None) -> None:
    """Raises Invalid where a job asks for more than its team's jobs may."""
    if limits.max_devices is not None and asked.world_size > limits.max_devices:
        raise _over(
            f"a job of this team may have at most {limits.max_devices} devices, and this one asks for "
            f"{asked.world_size}",
            "resources.devices_per_node",
        )
    allowed = limits.accelerators
    if allowed is not None and not any(accelerator_fits(asked.accelerator, type) for type in allowed):
        raise _over(
            f"jobs of this team may run on {', '.join(sorted(allowed))}, and {asked.accelerator!r} is none "
            "of these; leave accelerator out to get any of them",
            "resources.accelerator",
        )
    check_duration(limits, max_duration_s)


def check_duration(limits: Limits, asked: int | None) -> None:
    """Raises Invalid where a job may run for longer than its team's jobs may."""
    most = limits.max_duration_s
    if most is None or (asked is not None and asked <= most):
        return
    has = "has no limit of its own" if asked is None else f"asks for {asked}"
    raise _over(
        f"a job of this team may run for at most {most} seconds, and this one {has}: give at most {most}",
        "max_duration_s",
    )


def check_queue(limits: Limits, n_waiting: int) -> None:
    """Raises Conflict where the team may have no more jobs that wait."""
    most = limits.max_queued_jobs
    if most is not None and n_waiting >= most:
        raise Conflict(
            f"{n_waiting} jobs of this team wait already, and at most {most} may; send it again when one of "
            "them has started, or cancel one",
            code="too_many_queued_jobs",
        )


def check_storage(limits: Limits, stored_bytes: int, more_bytes: int, *, param: str | None) -> None:
    """Raises TooLarge where the team would keep more than it may."""
    most = limits.max_storage_bytes
    if most is not None and stored_bytes + more_bytes > most:
        raise TooLarge(
            f"this team keeps {stored_bytes:,} bytes of files and results and may keep {most:,}: "
            f"{max(0, most - stored_bytes):,} are left, and this would take {more_bytes:,}; "
            "delete files or jobs that are over",
            param=param,
            code="team_storage_full",
        )


def _over(message: str, param: str) -> Invalid:
    return Invalid(message, param=param, code="over_team_limit")


def check_accelerators(asked: Mapping[str, str], known: set[str]) -> None:
    """Raises Invalid for a name that no node has: it would bind nobody. `asked`: the field -> the name."""
    for param, name in asked.items():
        if name in known:
            continue
        meant = sorted(type for type in known if accelerator_fits(name, type))
        hint = (
            f"did you mean {' or '.join(map(repr, meant))}?"
            if meant
            else f"known: {', '.join(sorted(known))}"
        )
        raise Invalid(
            f"no node has an accelerator named {name!r}; {hint}", param=param, code="unknown_accelerator"
        )
