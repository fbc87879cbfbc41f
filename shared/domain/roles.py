"""What a key may do: `admin` runs the cluster; `owner`, `member` and `viewer` are roles within one team."""

from __future__ import annotations

import re
from typing import Literal

from shared.domain.errors import Forbidden, Invalid

Role = Literal["admin", "owner", "member", "viewer"]

WRITERS: frozenset[str] = frozenset({"admin", "owner", "member"})
"""They may submit, stop and delete for their team."""
KEEPERS: frozenset[str] = frozenset({"admin", "owner"})
"""They may make and revoke keys: an owner for the own team, an admin for all."""

TEAM_ID_START = "team-"
_TEAM_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")


def check_team_name(name: str) -> str:
    """The name, if a team may be called so: it can never be mistaken for an id. Raises Invalid."""
    if not _TEAM_NAME.match(name) or name.startswith(TEAM_ID_START):
        raise Invalid(
            f"{name[:80]!r} is no name for a team: 1 to 63 of a-z, 0-9, '.', '_' and '-', the first a letter "
            f"or a digit, and not {TEAM_ID_START!r} in front, as ids have it",
            param="name",
        )
    return name


def check_keeps(keeper: str, role: str) -> None:
    """Raises Forbidden unless a key of role `keeper` may make or revoke keys of this role."""
    if role == "admin" and keeper != "admin":
        raise Forbidden(
            f"keys of role 'admin' are made and revoked by admins alone; this key has the role {keeper!r}",
            param="role",
        )
