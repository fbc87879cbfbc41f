"""From rows of teams and keys to the shapes that leave the API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from api.schemas import unix, unix_or_none
from api.team_schemas import KeyView, OneTeamView, TeamView
from shared.db.keys import has_ended
from shared.db.models import ApiKey, Team


def team_view(team: Team) -> TeamView:
    return TeamView(**_team_fields(team))


def one_team_view(team: Team, *, unfinished_jobs: int) -> OneTeamView:
    """A team with what can be counted of it."""
    return OneTeamView(**_team_fields(team), unfinished_jobs=unfinished_jobs)


def _team_fields(team: Team) -> dict[str, Any]:
    return {
        "id": team.id,
        "name": team.name,
        "status": "active" if team.deletion_asked_at is None else "deleting",
        "created_at": unix(team.created_at),
        "deletion_asked_at": unix_or_none(team.deletion_asked_at),
    }


def key_view(key: ApiKey, team_names: Mapping[str, str]) -> KeyView:
    """A key; `team_names` by id."""
    return KeyView(**key_fields(key, team_names[key.team_id]))


def key_fields(key: ApiKey, team_name: str) -> dict[str, Any]:
    """What every view of a key shows."""
    return {
        "id": key.id,
        "name": key.name,
        "team": key.team_id,
        "team_name": team_name,
        "role": key.role,
        "prefix": key.prefix,
        "status": has_ended(key, datetime.now(UTC)) or "valid",
        "created_at": unix(key.created_at),
        "expires_at": unix_or_none(key.expires_at),
        "revoked_at": unix_or_none(key.revoked_at),
        "last_used_at": unix_or_none(key.last_used_at),
    }
