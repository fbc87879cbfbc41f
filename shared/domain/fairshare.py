"""Who runs next, and where: pure, (nodes, queue) -> placements and, for each job that waits, a reason.

First come, first served within priority. A job that fits nowhere yet keeps the order: on the nodes it could
run on, nothing behind it in the queue is placed, so that a large job is not starved by small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """A host that may be given work. `accelerator` is "cpu" or a device's name, "NVIDIA H100 80GB HBM3"."""

    id: str
    accelerator: str
    n_slots: int
    free_slots: tuple[int, ...]
    models: frozenset[tuple[str, str]] = frozenset()
    """(name, hash) of the registered models that are installed there."""


@dataclass(frozen=True)
class Waiting:
    """A queued job. `order` sorts it: the smallest first."""

    id: str
    order: tuple[int, float, str]
    devices_per_node: int
    accelerator: str
    nodes: int = 1
    registered_model: tuple[str, str] | None = None


@dataclass(frozen=True)
class Placement:
    job_id: str
    node_id: str
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Decision:
    placements: tuple[Placement, ...]
    reasons: dict[str, str]
    """Job id -> why it waits."""


def accelerator_fits(asked: str, has: str) -> bool:
    """Whether a node with `has` serves a job that asked for any, cpu, cuda, or (part of) a device's name."""
    if asked == "any":
        return True
    if asked in ("cpu", "cuda"):
        return (has == "cpu") == (asked == "cpu")
    return has != "cpu" and asked.lower() in has.lower()


def could_ever_run(job: Waiting, node: Node) -> bool:
    """Whether the node, if it were empty, could take one node's share of the job."""
    return (
        accelerator_fits(job.accelerator, node.accelerator)
        and node.n_slots >= job.devices_per_node
        and (job.registered_model is None or job.registered_model in node.models)
    )


def decide(nodes: Sequence[Node], queue: Sequence[Waiting]) -> Decision:
    """Place what can be placed now."""
    free = {node.id: list(node.free_slots) for node in nodes}
    kept_for_others: set[str] = set()
    placements: list[Placement] = []
    reasons: dict[str, str] = {}
    for job in sorted(queue, key=lambda waiting: waiting.order):
        if job.nodes > 1:
            reasons[job.id] = f"needs {job.nodes} nodes; jobs of several nodes are not placed yet"
            continue
        able = [node for node in nodes if could_ever_run(job, node)]
        fitting = [n for n in able if n.id not in kept_for_others and len(free[n.id]) >= job.devices_per_node]
        if fitting:
            node = min(fitting, key=lambda n: (len(free[n.id]), n.id))
            slots = tuple(free[node.id][: job.devices_per_node])
            del free[node.id][: job.devices_per_node]
            placements.append(Placement(job.id, node.id, slots))
            continue
        reasons[job.id] = _reason(job, able, free, kept_for_others)
        kept_for_others.update(node.id for node in able)
    return Decision(tuple(placements), reasons)


def _reason(job: Waiting, able: Sequence[Node], free: dict[str, list[int]], kept: set[str]) -> str:
    needs = f"needs {job.devices_per_node} of type {job.accelerator} on one node"
    if not able:
        model = f" with the registered model {job.registered_model[0]}" if job.registered_model else ""
        return f"{needs}; no node{model} has that"
    if any(len(free[n.id]) >= job.devices_per_node for n in able if n.id in kept):
        return f"{needs}; there is room, and a job ahead in the queue waits for it"
    return f"{needs}; the largest free block is {max(len(free[n.id]) for n in able)}"
