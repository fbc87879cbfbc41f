"""Small networks and freeze specs that mean something on them, drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from shared.domain.errors import Invalid
from shared.domain.freeze import FreezePlan, PlanPhase, parse_freeze, resolve
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo, enclosing, join

PARTS = ("a", "b", "ab", "conv1", "0")
KINDS = ("Linear", "BatchNorm2d", "ReLU", "Sequential")
HELD: tuple[tuple[str, ...], ...] = ((), ("weight",), ("bias", "weight"))
WILD = ("*", "?", "**")
glob_parts = st.sampled_from([*PARTS, "weight", *WILD, "c*1", "a?", "*b"])

Rule = dict[str, Any]
Rules = list[Rule]


@st.composite
def trees(draw: st.DrawFn) -> ModuleTree:
    """Small networks with shared parameters, blocks in any order, and `last`, the head."""
    leaf = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map(tuple)
    paths = draw(st.sets(leaf, min_size=1, max_size=4))
    every = sorted({path[:end] for path in paths for end in range(len(path) + 1)})
    drawn = tuple(
        ModuleInfo(
            ".".join(path),
            draw(st.sampled_from(KINDS)),
            tuple(TensorInfo(name, (2,)) for name in draw(st.sampled_from(HELD))),
        )
        for path in every
    )
    modules = (*drawn, ModuleInfo("last", "Linear", (TensorInfo("weight", (2,)),)))
    names = [join(module.path, p.name) for module in modules for p in module.parameters]
    canonical, *others = names
    shared = draw(st.sets(st.sampled_from(others), max_size=2)) if others else set()
    holding = sorted({name.partition(".")[0] for name in names if "." in name} - {"last"})
    blocks = tuple(draw(st.permutations(holding)))
    return ModuleTree(modules, dict.fromkeys(sorted(shared), canonical), ("last",), blocks, num_classes=None)


@st.composite
def patterns(draw: st.DrawFn, tree: ModuleTree) -> str:
    """A pattern of any kind that matches a parameter outside of the head."""
    name = draw(st.sampled_from([name for name in tree.names if not name.startswith("last")]))
    parts = name.split(".")
    parts = parts[: draw(st.integers(1, len(parts)))]
    hidden = draw(st.integers(0, len(parts) - 1))
    glob = [draw(st.sampled_from([p, p, *WILD])) if i == hidden else p for i, p in enumerate(parts)]
    holder = name.rpartition(".")[0]
    kinds = [".".join(glob), ".".join(glob), f"name:{parts[-1]}", f"re:^{parts[0]}.*t$", r"re:\.\d|b"]
    kinds.append(f"type:{tree.by_path[holder].class_name}")
    block = enclosing(name, tree.blocks)
    if block is not None:
        place = tree.blocks.index(block)
        kinds += [f"first:{place + 1}", f"last:{len(tree.blocks) - place}"]
    return draw(st.sampled_from(kinds))


@st.composite
def rules_on(draw: st.DrawFn, tree: ModuleTree) -> Rule:
    if draw(st.booleans()):
        return {"freeze": draw(patterns(tree))}
    rule: Rule = {"train": draw(st.lists(patterns(tree), min_size=1, max_size=2))}
    scale = draw(st.sampled_from([None, None, 0.5, 2.0]))
    return rule if scale is None else {**rule, "lr_scale": scale}


@st.composite
def networks(draw: st.DrawFn) -> tuple[ModuleTree, Rules]:
    """A network with rules that mean something on it: what is refused behind those before it is left out."""
    tree = draw(trees())
    assume(any(not name.startswith("last") for name in tree.names))
    rules: Rules = []
    for rule in draw(st.lists(rules_on(tree), min_size=1, max_size=4)):
        if plan_or_none([*rules, rule], tree) is not None:
            rules.append(rule)
    assume(rules)
    return tree, rules


@st.composite
def schedules(draw: st.DrawFn) -> tuple[ModuleTree, Rules, Rules]:
    """A network, rules, and at least one schedule entry that means something behind them, in any order."""
    tree, rules = draw(networks())
    entries: Rules = []
    for rule in draw(st.lists(rules_on(tree), min_size=2, max_size=5)):
        entry = {"at_epoch": draw(st.integers(1, 3)), **rule}
        if plan_or_none(rules, tree, [*entries, entry]) is not None:
            entries.append(entry)
    assume(entries)
    return tree, rules, entries


def plan_or_none(
    rules: Sequence[Rule], tree: ModuleTree, schedule: Sequence[Rule] = (), **policies: Any
) -> FreezePlan | None:
    try:
        return resolve(parse_freeze({"rules": rules, "schedule": schedule, **policies}), tree)
    except Invalid:
        return None


def planned(rules: Sequence[Rule], tree: ModuleTree) -> PlanPhase:
    """The one phase of rules without a schedule."""
    (only,) = phases(rules, tree)
    return only


def phases(rules: Sequence[Rule], tree: ModuleTree, schedule: Sequence[Rule] = ()) -> tuple[PlanPhase, ...]:
    plan = plan_or_none(rules, tree, schedule)
    assert plan is not None
    return plan.phases
