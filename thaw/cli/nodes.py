"""`thaw node`: the hosts that jobs run on, and taking one away in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import typer

from thaw.cli.output import Json, as_json, line, say, screen, table, when
from thaw.cli.plan_words import binary
from thaw.cli.session import server

NodeId = Annotated[str, typer.Argument(metavar="ID", help="The node, as `thaw node list` names it.")]


def list_nodes(ctx: typer.Context, json: Json = False) -> None:
    """The nodes, their state and their slots."""
    with server(ctx) as thaw:
        found = thaw.nodes()
    if json:
        as_json(found)
        return
    rows = (
        (node["id"], _state(node), node["accelerator"], _memory(node), _slots(node["slots"]))
        for node in found
    )
    table(("id", "state", "accelerator", "memory", "slots"), rows)


def show(ctx: typer.Context, node_id: NodeId, json: Json = False) -> None:
    """One node, and which of the team's jobs hold its slots."""
    with server(ctx) as thaw:
        node = thaw.node(node_id)
    if json:
        as_json(node)
        return
    console = screen()
    facts = (
        ("node", node["id"]),
        ("state", _state(node)),
        ("accelerator", node["accelerator"]),
        ("memory", _memory(node) + (" on each device" if node["memory_bytes"] is not None else "")),
        ("models", ", ".join(node["models"]) or "none registered"),
        ("last heard", f"{when(node['last_seen_at'])} UTC"),
    )
    for name, value in facts:
        console.print(f"{name:<14} {value}")
    slots = node["slots"]
    table(("slot", "state", "job"), ((slot["index"], _slot(slot), slot["job_id"]) for slot in slots))
    for slot in slots:
        if reason := slot.get("unhealthy_reason"):
            console.print(f"the GPU of slot {slot['index']} is given no new job: {reason}")


def drain(ctx: typer.Context, node_id: NodeId, json: Json = False) -> None:
    """For admins: have a node's jobs leave, and give it no more.

    They write a checkpoint and wait again, with no attempt used up. `thaw node undrain` gives it work again.
    """
    with server(ctx) as thaw:
        node = thaw.drain(node_id)
    _tell(node, json)


def undrain(ctx: typer.Context, node_id: NodeId, json: Json = False) -> None:
    """For admins: give a drained node work again. It takes its next heartbeat for it."""
    with server(ctx) as thaw:
        node = thaw.undrain(node_id)
    _tell(node, json)
    if not json:
        say(f"{node_id} is given work again from its next heartbeat on")


def _tell(node: Mapping[str, Any], json: bool) -> None:
    if json:
        as_json(node)
    else:
        line(f"{node['id']} {_state(node)}")


def _state(node: Mapping[str, Any]) -> str:
    """The state; of a node that an operator has drained, since when."""
    since = node.get("drained_at")
    return f"{node['state']}, drained since {when(since)} UTC" if since else str(node["state"])


def _memory(node: Mapping[str, Any]) -> str:
    return binary(node["memory_bytes"]) if node["memory_bytes"] is not None else "not known"


def _slot(slot: Mapping[str, Any]) -> str:
    """Its state; a free one on a GPU that is not fit for work is not free."""
    if not slot.get("unhealthy_reason"):
        return str(slot["state"])
    return "unhealthy" if slot["state"] == "free" else f"{slot['state']} and unhealthy"


def _slots(slots: Collection[Mapping[str, Any]]) -> str:
    numbers = Counter(map(_slot, slots))
    return ", ".join(f"{n} {state}" for state, n in sorted(numbers.items()))
