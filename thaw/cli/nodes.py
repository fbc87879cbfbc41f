"""`thaw node list`: the hosts that jobs run on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

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
    rows = ((node["id"], node["state"], node["accelerator"], _slots(node["slots"])) for node in found)
    table(("id", "state", "accelerator", "slots"), rows)


def _slots(slots: Collection[Mapping[str, Any]]) -> str:
    numbers = Counter(slot["state"] for slot in slots)
    return ", ".join(f"{n} {state}" for state, n in sorted(numbers.items()))
