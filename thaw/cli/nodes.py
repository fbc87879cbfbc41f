"""`thaw node list`: the hosts that jobs run on."""

from __future__ import annotations

import typer

from thaw.cli.output import Json, as_json, table
from thaw.cli.session import server


def list_nodes(ctx: typer.Context, json: Json = False) -> None:
    """The nodes, their state and their slots."""
    with server(ctx) as thaw:
        found = thaw.nodes()
    if json:
        as_json(found)
        return
    columns = ("id", "state", "accelerator", "slots")
    table(columns, ([node.get(column) for column in columns] for node in found))
