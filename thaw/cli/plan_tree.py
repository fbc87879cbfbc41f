"""A freeze plan as a tree: what trains and what is frozen, told apart by words as well as by colour."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

_STYLES = {"TRAINS": "bold green", "frozen": "cyan", "both": "yellow"}
_LABEL_WIDTH = 8


@dataclass
class Branch:
    """A module, or at the leaves a parameter, with the numbers of parameter tensors below it."""

    name: str
    path: str
    trained: int = 0
    frozen: int = 0
    children: dict[str, Branch] = field(default_factory=dict)

    @property
    def state(self) -> str:
        if self.trained and self.frozen:
            return "both"
        return "TRAINS" if self.trained else "frozen"


def drawn_plan(plan: Mapping[str, Any], order: Sequence[str] = ()) -> RenderableType:
    """Every phase of a plan under a line with its counts. A subtree that is all one way is one line.

    `order` are parameter names as the network has them. Without it the frozen ones stand before the others.
    """
    rank = {name: place for place, name in enumerate(order)}
    parts: list[RenderableType] = []
    for phase in plan["phases"]:
        if len(plan["phases"]) > 1:
            parts.append(Text(f"from epoch {phase['from_epoch'] + 1}", style="bold"))
        parts.append(_drawn_phase(str(plan["model"]), phase, rank))
    aliases = sorted((plan.get("aliases") or {}).items())
    parts.extend(Text(f"{alias} is the same tensor as {name}") for alias, name in aliases)
    return Group(*parts)


def branches(phase: Mapping[str, Any], rank: Mapping[str, int]) -> Branch:
    """The parameters of a phase as a tree, ordered by rank as far as it is known."""
    root = Branch("", "")
    trainable = frozenset(phase["trainable"])
    for name in sorted([*phase["frozen"], *phase["trainable"]], key=lambda name: rank.get(name, len(rank))):
        _add(root, name, trained=name in trainable)
    return root


def _drawn_phase(model: str, phase: Mapping[str, Any], rank: Mapping[str, int]) -> Tree:
    title = Text.assemble((model, "bold"), f": {counts(phase['n_trainable'], phase['n_frozen'])}")
    tree = Tree(title)
    _draw(tree, branches(phase, rank), frozenset(phase["still"]), phase.get("lr_scale") or {})
    return tree


def counts(trained: int, frozen: int) -> str:
    """How much trains, of how much."""
    total = trained + frozen
    share = 100 * trained / total if total else 0
    return f"{trained:,} of {total:,} parameters train ({share:.2f}%), {frozen:,} are frozen"


def _add(root: Branch, name: str, trained: bool) -> None:
    branch = root
    path = ""
    for step in name.split("."):
        path = f"{path}.{step}" if path else step
        branch = branch.children.setdefault(step, Branch(step, path))
        branch.trained += trained
        branch.frozen += not trained


def _draw(tree: Tree, branch: Branch, still: Collection[str], scales: Mapping[str, float]) -> None:
    for child in branch.children.values():
        drawn = tree.add(_label(child, still, scales))
        if child.state == "both":
            _draw(drawn, child, still, scales)


def _label(branch: Branch, still: Collection[str], scales: Mapping[str, float]) -> Text:
    remarks: list[str] = []
    if branch.children:
        n = branch.trained + branch.frozen
        tensors = f"{branch.trained} of {n} train" if branch.state == "both" else f"{n} tensor{'s' * (n > 1)}"
        remarks.append(tensors)
    if branch.path in still:
        remarks.append("still")
    remarks.extend(f"learning rate x{scale:g}" for scale in sorted(_scales_below(branch, scales)))
    label = Text.assemble((f"{branch.state:<{_LABEL_WIDTH}}", _STYLES[branch.state]), branch.name)
    return label.append(f"  ({', '.join(remarks)})", style="dim") if remarks else label


def _scales_below(branch: Branch, scales: Mapping[str, float]) -> set[float]:
    if branch.state == "both":
        return set()
    return {scale for name, scale in scales.items() if f"{name}.".startswith(f"{branch.path}.")}
