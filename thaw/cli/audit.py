"""`thaw audit`: who asked for what change, from where, and how it ended."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from thaw.cli.output import Json, as_json, table, when
from thaw.cli.session import server


def audit(
    ctx: typer.Context,
    team: Annotated[str | None, typer.Option(help="Of one team's keys, by its name or id.")] = None,
    key: Annotated[str | None, typer.Option(help="Of one key, by its id.")] = None,
    target: Annotated[str | None, typer.Option(help="About one object, by its id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    json: Json = False,
) -> None:
    """For owners and admins: who asked for which change. Refused ones too, the newest first."""
    with server(ctx) as thaw:
        found = list(islice(thaw.audit(team=team, key=key, target=target), limit))
    if json:
        as_json(found)
        return
    rows = (
        (
            when(entry["at"]),
            entry["team_name"],
            entry["key_name"],
            entry["role"],
            f"{entry['method']} {entry['route']}",
            entry["target"],
            entry["status"],
            entry["client"],
        )
        for entry in found
    )
    table(("when", "team", "key", "role", "asked for", "object", "status", "from"), rows, right=("status",))
