"""The shapes of teams and keys, in and out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from shared.domain.roles import Role
from shared.domain.spec import Strict

_TEN_YEARS_S = 10 * 365 * 24 * 3600


def _printable(name: str) -> str:
    if not name.isprintable() or not name.strip():
        raise ValueError("must have printable characters, and not spaces alone")
    return name


class NewTeam(Strict):
    """What is asked for."""

    name: str = Field(description="1 to 63 of a-z, 0-9, '.', '_' and '-'", max_length=200)


class TeamView(BaseModel):
    """A team: whose jobs, files and keys are seen by no other."""

    id: str
    object: Literal["team"] = "team"
    name: str
    status: Literal["active", "deleting"] = Field(
        description="deleting: its keys have ended, and it is gone once its jobs are over"
    )
    created_at: int
    deletion_asked_at: int | None


class OneTeamView(TeamView):
    """A team that was asked for by itself."""

    unfinished_jobs: int = Field(description="of a team that is being deleted, those that are being stopped")


class DeletedTeam(BaseModel):
    """`deleted` is false where the team is gone only once its jobs have been stopped."""

    id: str
    object: Literal["team"] = "team"
    deleted: bool


class NewKey(Strict):
    """What is asked for."""

    team: str | None = Field(
        None, min_length=1, max_length=200, description="id or name; the caller's own when left out"
    )
    role: Role
    name: Annotated[str, AfterValidator(_printable)] = Field(
        min_length=1, max_length=100, description="who or what will use it, for people"
    )
    expires_in_s: int | None = Field(
        None, ge=1, le=_TEN_YEARS_S, description="seconds from now; never when left out"
    )


class KeyView(BaseModel):
    """A key without its secret. `prefix` is how it begins; `last_used_at` is true to the minute."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    team: str = Field(description="the team's id")
    team_name: str
    role: Role
    prefix: str
    status: Literal["valid", "expired", "revoked"]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None


class MadeKey(KeyView):
    """A key that was just made."""

    key: str = Field(description="the key itself: it cannot be shown again")
