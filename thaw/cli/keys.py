"""`thaw key`: API keys, made and revoked by owners for their team and by admins for all."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from thaw.cli.output import Json, as_json, line, say, table, when
from thaw.cli.session import server
from thaw.cli.teams import last_used
from thaw.errors import UsageError

_LENGTH = re.compile(r"(\d{1,9})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    role: Annotated[str, typer.Option(help="viewer, member or owner; admin for who runs the server.")],
    team: Annotated[str | None, typer.Option(help="Name or id of the team; your own when left out.")] = None,
    expires_in: Annotated[
        str | None, typer.Option(metavar="TIME", help="30m, 12h or 90d; never when left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a key and print it. It cannot be shown again."""
    lasts_s = None if expires_in is None else _seconds(expires_in)
    with server(ctx) as thaw:
        made = thaw.keys.create(name, role, team=team, expires_in_s=lasts_s)
    if json:
        as_json(made)
        return
    until = f", until {when(made['expires_at'])} UTC" if made["expires_at"] else ""
    say(f"{made['id']}: {made['role']} of team {made['team_name']}{until}; the key is shown this once")
    line(made["key"])


def list_keys(
    ctx: typer.Context,
    team: Annotated[str | None, typer.Option(help="Those of one team, by its name or id.")] = None,
    json: Json = False,
) -> None:
    """The keys that you may see, the newest first.

    All for an admin, the team's for its owner, else your own.
    """
    with server(ctx) as thaw:
        found = list(thaw.keys.list(team))
    if json:
        as_json(found)
        return
    columns = ("id", "name", "team", "role", "begins", "status", "expires", "last used")
    rows = (
        (
            key["id"],
            key["name"],
            key["team_name"],
            key["role"],
            key["prefix"],
            key["status"],
            when(key["expires_at"]) or "never",
            last_used(key),
        )
        for key in found
    )
    table(columns, rows)


def revoke(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `thaw key list` has it.")],
    json: Json = False,
) -> None:
    """End a key at once, with the streams that were opened with it."""
    with server(ctx) as thaw:
        key = thaw.keys.revoke(key_id)
    if json:
        as_json(key)
    else:
        line(f"{key['id']} {key['status']}")


def _seconds(text: str) -> int:
    match = _LENGTH.match(text)
    if match is None:
        raise UsageError(
            f"--expires-in {text!r} is no length of time: a number with s, m, h or d behind it, as 90d"
        )
    return int(match[1]) * _SECONDS[match[2]]
