"""The parameters of a plan's phase as a tree of branches: what trains, how fast, and what that was before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Way(NamedTuple):
    """How a parameter is in a phase: whether it trains, and its factor on the learning rate."""

    trains: bool
    scale: float = 1.0


@dataclass
class Branch:
    """A module, or at the leaves a parameter.

    `ways` counts the parameter tensors below it by their ways in this phase and in the one before; in the
    first phase, that is the same twice.
    """

    name: str
    path: str
    ways: dict[tuple[Way, Way], int] = field(default_factory=dict)
    children: dict[str, Branch] = field(default_factory=dict)

    @property
    def n_tensors(self) -> int:
        return sum(self.ways.values())

    @property
    def n_trained(self) -> int:
        return sum(n for (now, _), n in self.ways.items() if now.trains)

    @property
    def is_uniform(self) -> bool:
        """Whether all below it trains or none, and so it was before; the rates may differ."""
        return len({(now.trains, before.trains) for now, before in self.ways}) == 1

    @property
    def has_changed(self) -> bool:
        return any(now != before for now, before in self.ways)

    @property
    def state(self) -> str:
        if 0 < self.n_trained < self.n_tensors:
            return "both"
        return "TRAINS" if self.n_trained else "frozen"


def branches(phase: Mapping[str, Any], before: Mapping[str, Any] | None, rank: Mapping[str, int]) -> Branch:
    """The parameters of a phase, ordered by rank as far as it is known; `before` is the phase before it."""
    root = Branch("", "")
    now = ways(phase)
    earlier = ways(before) if before is not None else now
    for name in sorted(now, key=lambda name: rank.get(name, len(rank))):
        _add(root, name, (now[name], earlier[name]))
    return root


def ways(phase: Mapping[str, Any]) -> dict[str, Way]:
    """Each parameter's way, the frozen ones first."""
    scales = phase.get("lr_scale") or {}
    frozen = {name: Way(trains=False) for name in phase["frozen"]}
    return frozen | {name: Way(trains=True, scale=scales.get(name, 1.0)) for name in phase["trainable"]}


def _add(root: Branch, name: str, way: tuple[Way, Way]) -> None:
    branch, path = root, ""
    branch.ways[way] = branch.ways.get(way, 0) + 1
    for step in name.split("."):
        path = f"{path}.{step}" if path else step
        branch = branch.children.setdefault(step, Branch(step, path))
        branch.ways[way] = branch.ways.get(way, 0) + 1
