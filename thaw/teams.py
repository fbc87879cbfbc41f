"""Teams and their keys. Owners manage the keys of their team, admins everything; others see their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from thaw.paging import pages
from thaw.transport import Transport

_TEAMS = "/v1/teams"
_KEYS = "/v1/keys"


class Teams:
    """Who shares the server. A team is named by its id or its name."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str) -> dict[str, Any]:
        """For admins: a new team."""
        return self._transport.post(_TEAMS, {"name": name})

    def list(self) -> Iterator[dict[str, Any]]:
        """Every team that the key sees, fetched a page at a time, the newest first."""
        return pages(self._transport, _TEAMS)

    def get(self, team: str) -> dict[str, Any]:
        """One team."""
        return self._transport.get(_team_path(team))

    def delete(self, team: str, *, confirm: str | None = None) -> bool:
        """For admins: delete a team and its keys; with its name again in `confirm`, all that it owns too.

        Whether it is gone; else it is as soon as its jobs have been stopped.
        """
        return bool(self._transport.delete(_team_path(team), confirm=confirm)["deleted"])


class Keys:
    """API keys."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, name: str, role: str, *, team: str | None = None, expires_in_s: int | None = None
    ) -> dict[str, Any]:
        """A new key, of the caller's own team unless told. Only this answer holds the key, as `key`."""
        asked = {"name": name, "role": role, "team": team, "expires_in_s": expires_in_s}
        return self._transport.post(
            _KEYS, {field: value for field, value in asked.items() if value is not None}
        )

    def list(self, team: str | None = None) -> Iterator[dict[str, Any]]:
        """Every key that the caller sees, or those of one team, the newest first."""
        return pages(self._transport, _KEYS, filters={"team": team})

    def get(self, key_id: str) -> dict[str, Any]:
        """One key, without its secret."""
        return self._transport.get(_key_path(key_id))

    def revoke(self, key_id: str) -> dict[str, Any]:
        """End a key at once."""
        return self._transport.post(f"{_key_path(key_id)}/revoke")


def _team_path(team: str) -> str:
    return f"{_TEAMS}/{quote(team, safe='')}"


def _key_path(key_id: str) -> str:
    return f"{_KEYS}/{quote(key_id, safe='')}"
