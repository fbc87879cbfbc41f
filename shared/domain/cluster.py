"""What a scheduling pass looks at, nodes and jobs, and what it decides, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


@dataclass(frozen=True)
class Node:
    """A host that may be given work. `accelerator` is "cpu" or a device's name, "NVIDIA H100 80GB HBM3"."""

    id: str
    accelerator: str
    n_slots: int
    free_slots: tuple[int, ...]
    models: frozenset[tuple[str, str]] = frozenset()
    """(name, hash) of the registered models that are installed there."""
    takes_work: bool = True
    """Whether what becomes free there may be given out just now."""
    memory_bytes: int | None = None
    """Of one of its GPUs; None where it is not known, and of CPU nodes, whose processes share the host's."""
    is_out_of_reach: bool = False
    """Whether other machines cannot reach it at the address that it gives: it can be part of no gang."""


@dataclass(frozen=True)
class Waiting:
    """A queued job. `order` sorts it among its team's: the smallest first; (-priority, queued at, id).

    One that asks for several nodes is a gang: it runs on all of them at once, or not at all.
    """

    id: str
    order: tuple[int, float, str]
    devices_per_node: int
    accelerator: str
    nodes: int = 1
    registered_model: tuple[str, str] | None = None
    team: str = ""
    memory_bytes: int | None = None
    """What it takes of a GPU; None where nobody knows."""


@dataclass(frozen=True)
class Running:
    """A job that holds slots, all of one accelerator type.

    `held`: how many on each of its nodes; `started_at`: when it was placed, in seconds of any clock.
    """

    id: str
    team: str
    held: tuple[tuple[str, int], ...]
    accelerator: str
    started_at: float
    is_leaving: bool = False
    """Whether it was asked to stop and so hands its slots back soon."""
    remaining_s: float = 0.0
    """How long it still runs at most; inf where nobody can say."""

    @cached_property
    def slots(self) -> int:
        """On all of its nodes together."""
        return sum(slots for _, slots in self.held)


class Part(NamedTuple):
    """What a placement takes of one node."""

    node_id: str
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """A job's slots, all or none of them. `parts`: by node rank, each on a node of its own."""

    job_id: str
    parts: tuple[Part, ...]

    @property
    def n_slots(self) -> int:
        """On all nodes together."""
        return sum(len(part.slots) for part in self.parts)


@dataclass(frozen=True)
class Preemption:
    """A running job that is to hand back what it borrowed; `for_team` takes its own quota back."""

    job_id: str
    for_team: str
    for_job: str
    accelerator: str


@dataclass(frozen=True)
class Reservation:
    """Slots of a node, free or soon to be, that nobody but this waiting job gets."""

    job_id: str
    node_id: str
    slots: int


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
        and holds(node, job.memory_bytes)
        and not (node.is_out_of_reach and job.nodes > 1)
    )


def holds(node: Node, memory_bytes: int | None) -> bool:
    """Whether each GPU of the node has so much memory; where a side is not known, it is not refused."""
    if memory_bytes is None or node.memory_bytes is None or node.accelerator == "cpu":
        return True
    return memory_bytes <= node.memory_bytes


def expected_remaining_s(ran_s: float, limit_s: float | None) -> float:
    """How long a job that has run for `ran_s` still runs: as long as it may; inf where it has no limit.

    Never a guess that grows while the job runs, as "as long again as it has run" does: nodes kept for a job
    that waits would look the worse the longer they are kept, and be let go for others that were just filled.
    """
    return math.inf if limit_s is None else max(0.0, limit_s - ran_s)
