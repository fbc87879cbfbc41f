"""`thaw queue`: what waits for slots, and when it may start."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import typer

from thaw.cli.output import Json, as_json, say, table
from thaw.cli.session import server

_COLUMNS = ("place", "id", "model", "priority", "start", "waits for")

_STATES = ("free", "held", "dirty", "away", "unhealthy")


def queue(ctx: typer.Context, json: Json = False) -> None:
    """The team's jobs that wait for slots, in their order.

    With the place of each, when it may start, and why it waits. Admins see every team's. Places are those
    in the whole cluster's queue.
    """
    with server(ctx) as thaw:
        found = thaw.queue()
    if json:
        as_json(found["data"])
        return
    rows = (
        (
            job.get("queue_position"),
            job["id"],
            job["model"],
            job["priority"],
            start_in_words(job.get("estimated_start")),
            job.get("wait_reason") or "free slots",
        )
        for job in found["data"]
    )
    table(_COLUMNS, rows, right=("place", "priority"))
    if found.get("has_more"):
        say("and more, which are not shown")
    say(f"{found['n_waiting']} wait in all")
    for of in found["slots"]:
        states = ", ".join(f"{of[state]} {state}" for state in _STATES if of.get(state))
        say(f"{of['accelerator']}: {states or 'no slots'}")


def start_in_words(start: Mapping[str, Any] | None) -> str:
    """When a waiting job may start, with the bounds of that guess, in UTC."""
    if start is None:
        return "not known"
    likely, latest = start["likely"], start["latest"]
    bounds = f"not before {_minute(start['earliest'])}" + (f", by {_minute(latest)}" if latest else "")
    return f"{f'about {_minute(likely)}' if likely else 'not known'} ({bounds})"


def _minute(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%m-%d %H:%M")
