"""What a team is owed and may ask for, on the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from thaw.transport import Transport


class TeamQuotas:
    """The quotas, weights and limits of teams."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, team: str) -> dict[str, Any]:
        """A team's quotas, weight and limits, and what it holds of them."""
        return self._transport.get(_path(team))

    def replace(self, team: str, terms: Mapping[str, Any]) -> dict[str, Any]:
        """For admins: set all of them anew. What is left out limits nothing."""
        return self._transport.put(_path(team), terms)


def _path(team: str) -> str:
    return f"/v1/teams/{quote(team, safe='')}/quota"
