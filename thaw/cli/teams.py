"""`thaw team`: who shares the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from thaw.cli.output import Json, as_json, line, say, screen, table, when
from thaw.cli.session import server

TeamName = Annotated[str, typer.Argument(metavar="TEAM", help="The team's name or id.")]


def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="1 to 63 of a-z, 0-9, '.', '_' and '-'.")],
    json: Json = False,
) -> None:
    """For admins: make a team, and print its id."""
    with server(ctx) as thaw:
        team = thaw.teams.create(name)
    if json:
        as_json(team)
    else:
        line(team["id"])


def list_teams(ctx: typer.Context, json: Json = False) -> None:
    """All teams for an admin; for everybody else the own one."""
    with server(ctx) as thaw:
        found = list(thaw.teams.list())
    if json:
        as_json(found)
        return
    rows = ((team["id"], team["name"], team["status"], when(team["created_at"])) for team in found)
    table(("id", "name", "status", "created"), rows)


def show(ctx: typer.Context, team: TeamName, json: Json = False) -> None:
    """One team, and of its keys those that you may see."""
    with server(ctx) as thaw:
        found, keys = thaw.teams.get(team), list(thaw.keys.list(team))
    if json:
        as_json({**found, "keys": keys})
        return
    console = screen()
    for name, value in (
        ("team", found["name"]),
        ("id", found["id"]),
        ("status", _status(found)),
        ("created", f"{when(found['created_at'])} UTC"),
    ):
        console.print(f"{name:<14} {value}")
    table(
        ("key", "name", "role", "status", "last used"),
        ((key["id"], key["name"], key["role"], key["status"], last_used(key)) for key in keys),
    )


def remove(
    ctx: typer.Context,
    team: TeamName,
    confirm: Annotated[
        str | None, typer.Option(metavar="NAME", help="The team's name again: all that it owns goes too.")
    ] = None,
) -> None:
    """For admins: delete a team, with --confirm all that it owns.

    Its keys end at once, and with --confirm its jobs, files, models and quotas go too. What runs is cancelled
    first; the team is gone once that has ended, which `thaw team show` tells.
    """
    with server(ctx) as thaw:
        is_gone = thaw.teams.delete(team, confirm=confirm)
    if not is_gone:
        say(f"{team} is being deleted: its keys have ended, and it is gone once its jobs are over")


def _status(team: Mapping[str, Any]) -> str:
    if team["status"] != "deleting":
        return str(team["status"])
    asked = f"deleting, asked for at {when(team['deletion_asked_at'])} UTC"
    return f"{asked}, jobs that are not over: {team['unfinished_jobs']:,}"


def last_used(key: Mapping[str, Any]) -> str:
    """When, or never."""
    return when(key["last_used_at"]) or "never"
