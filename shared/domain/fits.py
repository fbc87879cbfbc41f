"""Whether a job fits the nodes that there are: pure, (what it needs, kinds of nodes) -> answers and warnings.

An estimate refuses nothing. It may be wrong in both directions, by what it leaves out and by what it counts
although it is gone in time; so a job that fits nowhere is taken, and told so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.domain.memory import Needs, largest_batch, peak
from shared.domain.plan_figures import Device, Fit

MOST_SAMPLES = 65_536


@dataclass(frozen=True)
class NodeKind:
    """Nodes that are alike. `cannot` says why none of them could run the job, whatever its memory."""

    accelerator: str
    memory_bytes: int | None
    nodes: int
    cannot: str | None = None

    @property
    def device(self) -> Device:
        return "cpu" if self.accelerator == "cpu" else "cuda"


@dataclass(frozen=True)
class Demand:
    """What a job takes of a device of each kind, by phase, and how it shares out its batch."""

    needs: Mapping[Device, Sequence[Needs]]
    batch_size: int
    world_size: int


def fits(demand: Demand, kinds: Sequence[NodeKind]) -> list[Fit]:
    """An answer for each kind of node."""
    return [_fit(demand, kind) for kind in kinds]


def warnings(demand: Demand, kinds: Sequence[NodeKind]) -> list[str]:
    """In words, what a person should know before the job waits for such a node and fails there."""
    able = [fit for fit, kind in zip(fits(demand, kinds), kinds, strict=True) if kind.cannot is None]
    too_small = [fit for fit in able if fit.fits is False]
    if not too_small:
        return []
    if len(too_small) < len(able):
        names = ", ".join(sorted({_named(fit) for fit in too_small}))
        return [
            f"this job may be placed on a node where it does not fit ({names}); "
            "name a larger device in resources.accelerator"
        ]
    best = max(too_small, key=lambda fit: (fit.largest_batch_size or 0, fit.memory_bytes or 0))
    return [f"this job fits no node that could run it: on {best.accelerator} it {best.reason}"]


def _fit(demand: Demand, kind: NodeKind) -> Fit:
    phases = demand.needs[kind.device]
    needed = peak(phases, demand.batch_size // demand.world_size)
    largest = _largest(demand, kind) if needed is not None else None
    holds = None if needed is None or kind.memory_bytes is None else needed <= kind.memory_bytes
    return Fit(
        accelerator=kind.accelerator,
        memory_bytes=kind.memory_bytes,
        nodes=kind.nodes,
        fits=False if kind.cannot else holds,
        needed_bytes=needed,
        largest_batch_size=largest,
        reason=kind.cannot or _reason(kind, needed, largest),
    )


def _largest(demand: Demand, kind: NodeKind) -> int | None:
    if kind.memory_bytes is None:
        return None
    most = MOST_SAMPLES // demand.world_size
    return demand.world_size * largest_batch(demand.needs[kind.device], kind.memory_bytes, most)


def _reason(kind: NodeKind, needed: int | None, largest: int | None) -> str | None:
    if needed is None:
        return "what it needs is not known"
    if kind.memory_bytes is None:
        return "the memory of these nodes is not known"
    if needed <= kind.memory_bytes:
        return None
    other = f"batch_size {largest} would fit" if largest else "no batch_size would fit"
    return f"needs {_gib(needed)} of {_gib(kind.memory_bytes)} on each device; {other}"


def _named(fit: Fit) -> str:
    return f"{fit.accelerator}, {_gib(fit.memory_bytes or 0)}"


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"
