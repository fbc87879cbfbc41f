"""A freeze plan as a tree: what trains and what is frozen, told apart by words as well as by colour."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from thaw.cli.plan_branches import Branch, Way, branches

_STYLES = {"TRAINS": "bold green", "frozen": "cyan", "both": "yellow"}
_LABEL_WIDTH = 8


def drawn_plan(plan: Mapping[str, Any], order: Sequence[str] = ()) -> RenderableType:
    """Every phase of a plan under a line with its counts. A subtree that is all one way is one line.

    Of the later phases only what changes is drawn. `order` are parameter names as the network has them;
    without it the frozen ones stand before the others.
    """
    rank = {name: place for place, name in enumerate(order)}
    phases = plan["phases"]
    parts: list[RenderableType] = []
    for number, phase in enumerate(phases):
        if len(phases) > 1:
            at_epoch = f" (at_epoch {phase['from_epoch']})" if number else ""
            parts.append(Text(f"{epochs(phases, number)}{at_epoch}", style="bold"))
        before = phases[number - 1] if number else None
        parts.append(_drawn_phase(str(plan["model"]), phase, before, rank))
    aliases = sorted((plan.get("aliases") or {}).items())
    parts.extend(Text(f"{alias} is the same tensor as {name}") for alias, name in aliases)
    return Group(*parts)


def epochs(phases: Sequence[Mapping[str, Any]], number: int) -> str:
    """The epochs of a phase, counted from 1 as people do: "epoch 1", "epochs 2-5", "from epoch 6 on"."""
    first = phases[number]["from_epoch"] + 1
    if number + 1 == len(phases):
        return f"from epoch {first} on"
    last = phases[number + 1]["from_epoch"]
    return f"epoch {first}" if first == last else f"epochs {first}-{last}"


def counts(trained: int, frozen: int) -> str:
    """How much trains, of how much."""
    total = trained + frozen
    share = 100 * trained / total if total else 0
    return f"{trained:,} of {total:,} parameters train ({share:.2f}%), {frozen:,} are frozen"


def _drawn_phase(
    model: str, phase: Mapping[str, Any], before: Mapping[str, Any] | None, rank: Mapping[str, int]
) -> Tree:
    title = Text.assemble((model, "bold"), f": {counts(phase['n_trainable'], phase['n_frozen'])}")
    tree = Tree(title)
    root = branches(phase, before, rank)
    _draw(tree, root, frozenset(phase["still"]), only_changed=before is not None)
    if before is not None:
        tree.add(Text("all else as before", style="dim"))
    if phase.get("steps"):
        _add_steps(tree, phase["steps"])
    return tree


def _add_steps(tree: Tree, steps: Sequence[Mapping[str, Any]]) -> None:
    below = tree.add(Text("the model's own training steps, each once on every batch", style="bold"))
    for number, step in enumerate(steps, start=1):
        words = f"{number}. {step['name']}: "
        if step["trainable"]:
            n = len(step["trainable"])
            words += (
                f"trains {step['n_trainable']:,} parameters ({n} tensor{'s' * (n > 1)}) by {step['loss']}"
            )
        else:
            words += "left out, as all that it would train is frozen"
        below.add(Text(words))


def _draw(tree: Tree, branch: Branch, still: Collection[str], *, only_changed: bool) -> None:
    for child in branch.children.values():
        if only_changed and not child.has_changed:
            continue
        drawn = tree.add(_label(child, still))
        if not child.is_uniform:
            _draw(drawn, child, still, only_changed=only_changed)


def _label(branch: Branch, still: Collection[str]) -> Text:
    remarks = [*_size(branch), *(["still"] if branch.path in still else []), *_rate(branch)]
    label = Text.assemble((f"{branch.state:<{_LABEL_WIDTH}}", _STYLES[branch.state]), branch.name)
    return label.append(f"  ({', '.join(remarks)})", style="dim") if remarks else label


def _size(branch: Branch) -> Iterator[str]:
    n = branch.n_tensors
    if branch.state == "both":
        yield f"{branch.n_trained} of {n} train"
    elif branch.children:
        yield f"{n} tensor{'s' * (n > 1)}"


def _rate(branch: Branch) -> Iterator[str]:
    """The rates at which a branch learns that trains as a whole, and what it was where that has changed."""
    if not branch.is_uniform:
        return
    now, before = ({pair[time] for pair in branch.ways} for time in (0, 1))
    if branch.n_trained and {way.scale for way in now} != {1.0}:
        yield f"learning rate {_span(now)}"
    if not branch.has_changed:
        return
    if all(way.trains for way in now | before):
        yield f"was {_span(before)}"
    else:
        yield "was training" if branch.state == "frozen" else "was frozen"


def _span(ways: Collection[Way]) -> str:
    scales = [way.scale for way in ways]
    least, most = min(scales), max(scales)
    return f"x{least:.3g}" if least == most else f"x{least:.3g} to x{most:.3g}"
