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
    """A module, or at the leaves a parameter, with what is below it: how many parameter tensors train and are
    frozen, and the factors on the learning rate of those that train.
    """

    name: str
    path: str
    trained: int = 0
    frozen: int = 0
    scales: set[float] = field(default_factory=set)
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
            parts.append(Text(_when(phase["from_epoch"]), style="bold"))
        parts.append(_drawn_phase(str(plan["model"]), phase, rank))
    aliases = sorted((plan.get("aliases") or {}).items())
    parts.extend(Text(f"{alias} is the same tensor as {name}") for alias, name in aliases)
    return Group(*parts)


def branches(phase: Mapping[str, Any], rank: Mapping[str, int]) -> Branch:
    """The parameters of a phase as a tree, ordered by rank as far as it is known."""
    root = Branch("", "")
    trainable = frozenset(phase["trainable"])
    scales: Mapping[str, float] = phase.get("lr_scale") or {}
    for name in sorted([*phase["frozen"], *phase["trainable"]], key=lambda name: rank.get(name, len(rank))):
        _add(root, name, scales.get(name, 1.0) if name in trainable else None)
    return root


def _when(epoch: int) -> str:
    """People count from 1, the spec from 0: with both, nobody has to know which one this is."""
    return f"from epoch {epoch + 1} (at_epoch: {epoch})" if epoch else "from epoch 1"


def _drawn_phase(model: str, phase: Mapping[str, Any], rank: Mapping[str, int]) -> Tree:
    title = Text.assemble((model, "bold"), f": {counts(phase['n_trainable'], phase['n_frozen'])}")
    tree = Tree(title)
    _draw(tree, branches(phase, rank), frozenset(phase["still"]))
    return tree


def counts(trained: int, frozen: int) -> str:
    """How much trains, of how much."""
    total = trained + frozen
    share = 100 * trained / total if total else 0
    return f"{trained:,} of {total:,} parameters train ({share:.2f}%), {frozen:,} are frozen"


def _add(root: Branch, name: str, scale: float | None) -> None:
    """Counts the parameter `name` at each branch above it. Without a scale it is frozen."""
    branch = root
    path = ""
    for step in name.split("."):
        path = f"{path}.{step}" if path else step
        branch = branch.children.setdefault(step, Branch(step, path))
        if scale is None:
            branch.frozen += 1
        else:
            branch.trained += 1
            branch.scales.add(scale)


def _draw(tree: Tree, branch: Branch, still: Collection[str]) -> None:
    for child in branch.children.values():
        drawn = tree.add(_label(child, still))
        if child.state == "both":
            _draw(drawn, child, still)


def _label(branch: Branch, still: Collection[str]) -> Text:
    remarks: list[str] = []
    if branch.children:
        n = branch.trained + branch.frozen
        tensors = f"{branch.trained} of {n} train" if branch.state == "both" else f"{n} tensor{'s' * (n > 1)}"
        remarks.append(tensors)
    if branch.path in still:
        remarks.append("still")
    if branch.state == "TRAINS" and branch.scales != {1.0}:
        remarks.append(f"learning rate {_span(branch.scales)}")
    label = Text.assemble((f"{branch.state:<{_LABEL_WIDTH}}", _STYLES[branch.state]), branch.name)
    return label.append(f"  ({', '.join(remarks)})", style="dim") if remarks else label


def _span(scales: Collection[float]) -> str:
    least, most = min(scales), max(scales)
    return f"x{least:g}" if least == most else f"x{least:g} to x{most:g}"
