"""Whether a job fits the nodes that there are: pure, (what it needs, kinds of nodes) -> answers and warnings.

What a GPU must have is the plan's estimate, unless a person says better: the estimate may be wrong in both
directions, by what it leaves out and by what it counts although it is gone in time. A plan tells where a job
fits; a job that fits no GPU that could run it is refused when it is submitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shared.domain.device import Device
from shared.domain.errors import Invalid
from shared.domain.memory import Needs, gib, largest_batch, peak
from shared.domain.plan_figures import Fit
from shared.domain.spec import LARGEST_BATCH

_OVERRIDE = "resources.min_memory_bytes, which counts in place of the estimate, says what a GPU must have"


@dataclass(frozen=True)
class NodeKind:
    """Nodes that are alike. `cannot` says why none of them could run the job, whatever its memory.

    `nodes` are there now, and `lost` ones may come back.
    """

    accelerator: str
    memory_bytes: int | None
    nodes: int
    cannot: str | None = None
    lost: int = 0

    @property
    def device(self) -> Device:
        return "cpu" if self.accelerator == "cpu" else "cuda"


@dataclass(frozen=True)
class Demand:
    """What a job takes of a device of each kind, by phase, and how it shares out its batch.

    `asked_bytes`: what a person says that a GPU must have, in place of the estimate.
    """

    needs: Mapping[Device, Sequence[Needs]]
    batch_size: int
    world_size: int
    asked_bytes: int | None = None
    nodes: int = 1
    """So many of one accelerator it needs at once."""

    def on(self, device: Device) -> int | None:
        """What a device must have, None where nobody knows."""
        return self.estimate(device) if device == "cpu" or self.asked_bytes is None else self.asked_bytes

    def estimate(self, device: Device) -> int | None:
        """What the worst phase takes, as far as is known."""
        return peak(self.needs[device], self.batch_size // self.world_size)


def fits(demand: Demand, kinds: Sequence[NodeKind]) -> list[Fit]:
    """An answer for each kind of node that is there."""
    return [_fit(demand, kind) for kind in kinds if kind.nodes]


def check_fits(demand: Demand, kinds: Sequence[NodeKind]) -> None:
    """Raises Invalid for a job that no node could hold, with the largest batch that would fit.

    Nodes that are lost just now count too.
    """
    best = _nowhere(demand, [replace(kind, nodes=kind.nodes + kind.lost) for kind in kinds])
    if best is not None:
        param = "hyperparameters.batch_size" if best.largest_batch_size else "resources"
        raise Invalid(_nowhere_in_words(demand, best), param=param, code="never_available")


def warnings(demand: Demand, kinds: Sequence[NodeKind]) -> list[str]:
    """In words, what a person should know before the job waits in vain, or fails."""
    here = [kind for kind in kinds if kind.nodes]
    best = _nowhere(demand, here)
    if best is not None:
        return [_nowhere_in_words(demand, best)]
    estimate = demand.estimate("cuda")
    risky = [kind for kind in here if _is_let_on(demand, kind, estimate)]
    if not risky:
        return []
    names = ", ".join(sorted({f"{kind.accelerator}, {gib(kind.memory_bytes or 0)}" for kind in risky}))
    return [
        f"by the estimate this job takes {gib(estimate or 0)} of each GPU; resources.min_memory_bytes lets "
        f"it be placed where there is less ({names})"
    ]


def _nowhere(demand: Demand, kinds: Sequence[NodeKind]) -> Fit | None:
    """Where a job that too few of those hold that could run it comes nearest; None if enough may hold it."""
    able = [_fit(demand, kind) for kind in kinds if kind.cannot is None]
    too_small = [fit for fit in able if fit.fits is False]
    holding: Counter[str] = Counter()
    for fit in able:
        holding[fit.accelerator] += fit.nodes if fit.fits is not False else 0
    if not too_small or max(holding.values()) >= demand.nodes:
        return None
    return max(too_small, key=lambda fit: (fit.largest_batch_size or 0, fit.memory_bytes or 0))


def _nowhere_in_words(demand: Demand, best: Fit) -> str:
    no_node = (
        "no node that could run it" if demand.nodes == 1 else f"fewer than {demand.nodes} nodes of a kind"
    )
    return f"this job fits {no_node}: on {best.accelerator} it {best.reason}. {_OVERRIDE}"


def _is_let_on(demand: Demand, kind: NodeKind, estimate: int | None) -> bool:
    """Whether it is placed there on a person's word, against the estimate."""
    if kind.cannot or kind.memory_bytes is None or demand.asked_bytes is None or estimate is None:
        return False
    return kind.device == "cuda" and demand.asked_bytes <= kind.memory_bytes < estimate


def _fit(demand: Demand, kind: NodeKind) -> Fit:
    needed = demand.on(kind.device)
    largest = _largest(demand, kind) if demand.estimate(kind.device) is not None else None
    holds = None if needed is None or kind.memory_bytes is None else needed <= kind.memory_bytes
    return Fit(
        accelerator=kind.accelerator,
        memory_bytes=kind.memory_bytes,
        nodes=kind.nodes,
        fits=False if kind.cannot else holds,
        needed_bytes=needed,
        largest_batch_size=largest,
        reason=kind.cannot or _reason(demand, kind, needed, largest),
    )


def _largest(demand: Demand, kind: NodeKind) -> int | None:
    if kind.memory_bytes is None:
        return None
    most = LARGEST_BATCH // demand.world_size
    return demand.world_size * largest_batch(demand.needs[kind.device], kind.memory_bytes, most)


def _reason(demand: Demand, kind: NodeKind, needed: int | None, largest: int | None) -> str | None:
    if needed is None:
        return "what it needs is not known"
    if kind.memory_bytes is None:
        return "the memory of these nodes is not known"
    if needed <= kind.memory_bytes:
        return None
    short = f"needs {gib(needed)} of {gib(kind.memory_bytes)} on each device"
    if needed == demand.asked_bytes:
        return f"{short}, as resources.min_memory_bytes asks"
    return f"{short}; {f'batch_size {largest} would fit' if largest else 'no batch_size would fit'}"
