"""What holds of the freeze language for every network and every spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from shared.domain.errors import Invalid
from shared.domain.freeze import FreezePlan, PlanPhase, parse_freeze, resolve
from shared.domain.freeze_patterns import compile_pattern
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo, join

PARTS = ("a", "b", "ab", "conv1", "0")
KINDS = ("Linear", "BatchNorm2d", "ReLU", "Sequential")
HELD: tuple[tuple[str, ...], ...] = ((), ("weight",), ("bias", "weight"))
WILD = ("*", "?", "**")
glob_parts = st.sampled_from([*PARTS, "weight", *WILD, "c*1", "a?", "*b"])


Rules = list[dict[str, str]]


@st.composite
def trees(draw: st.DrawFn) -> ModuleTree:
    """Small networks with shared parameters, and a layer `last` that no drawn pattern names."""
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
    return ModuleTree(modules, dict.fromkeys(sorted(shared), canonical), head=(), blocks=(), num_classes=None)


@st.composite
def networks(draw: st.DrawFn) -> tuple[ModuleTree, Rules]:
    """A network with rules that mean something on it."""
    tree = draw(trees())
    names = [name.split(".") for name in tree.names if not name.startswith("last")]
    assume(names)
    rules: Rules = []
    for verb in draw(st.lists(st.sampled_from(["freeze", "freeze", "train"]), min_size=1, max_size=4)):
        parts = draw(st.sampled_from(names))
        parts = parts[: draw(st.integers(1, len(parts)))]
        hidden = draw(st.integers(0, len(parts) - 1))
        parts = [draw(st.sampled_from([p, p, *WILD])) if i == hidden else p for i, p in enumerate(parts)]
        name = draw(st.sampled_from([".".join(parts), ".".join(parts), f"name:{parts[-1]}"]))
        rules.append({verb: name})
    assume(plan_or_none(rules, tree) is not None)
    return tree, rules


def plan_or_none(rules: Sequence[dict[str, Any]], tree: ModuleTree) -> FreezePlan | None:
    try:
        return resolve(parse_freeze({"rules": rules}), tree)
    except Invalid:
        return None


def planned(rules: Sequence[dict[str, Any]], tree: ModuleTree) -> PlanPhase:
    plan = plan_or_none(rules, tree)
    assert plan is not None
    return plan.phases[0]


def names_of(parameter: str, tree: ModuleTree) -> list[str]:
    return [name for name, canonical in tree.names.items() if canonical == parameter]


def verbs_for(parameter: str, rules: Rules, tree: ModuleTree) -> list[str]:
    """What each rule says that matches one of the parameter's names, in order."""
    return [
        verb
        for rule in rules
        for verb, pattern in rule.items()
        if any(compile_pattern(pattern, tree)(name) for name in names_of(parameter, tree))
    ]


def naive_glob(pattern: list[str], name: list[str]) -> bool:
    """The definition, word for word: the pattern equals the name or a dotted prefix of it."""
    return any(naive_equal(pattern, name[:end]) for end in range(len(name) + 1))


def naive_equal(pattern: list[str], name: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(naive_equal(pattern[1:], name[start:]) for start in range(len(name) + 1))
    return bool(name) and naive_part(pattern[0], name[0]) and naive_equal(pattern[1:], name[1:])


def naive_part(pattern: str, part: str) -> bool:
    if not pattern:
        return not part
    if pattern[0] == "*":
        return any(naive_part(pattern[1:], part[start:]) for start in range(len(part) + 1))
    return bool(part) and pattern[0] in ("?", part[0]) and naive_part(pattern[1:], part[1:])


@given(trees(), st.lists(glob_parts, min_size=1, max_size=5))
def test_globs_match_as_defined(tree: ModuleTree, parts: list[str]) -> None:
    matches = compile_pattern(".".join(parts), tree)
    for name in tree.names:
        assert matches(name) == naive_glob(parts, name.split("."))


@given(networks())
def test_every_parameter_is_decided_once_and_counted(network: tuple[ModuleTree, Rules]) -> None:
    tree, rules = network
    phase = planned(rules, tree)
    assert sorted(phase.trainable + phase.frozen) == sorted(tree.parameters())
    assert phase.trainable
    assert phase.n_trainable == 2 * len(phase.trainable)
    assert phase.n_frozen == 2 * len(phase.frozen)


@given(networks())
def test_the_last_rule_that_matches_any_name_of_a_parameter_wins(network: tuple[ModuleTree, Rules]) -> None:
    tree, rules = network
    phase = planned(rules, tree)
    for parameter in tree.parameters():
        assert (parameter in phase.frozen) == (verbs_for(parameter, rules, tree)[-1:] == ["freeze"])


@given(networks())
def test_a_module_is_still_exactly_if_all_that_it_holds_is_frozen(network: tuple[ModuleTree, Rules]) -> None:
    tree, rules = network
    phase = planned(rules, tree)

    def still(path: str) -> bool:
        below = {c for n, c in tree.names.items() if not path or n.startswith(path + ".")}
        if below or not path:
            return bool(below) and below <= set(phase.frozen)
        return still(path.rpartition(".")[0])

    assert list(phase.still) == [module.path for module in tree.modules if still(module.path)]


@given(networks())
def test_saying_it_again_changes_nothing(network: tuple[ModuleTree, Rules]) -> None:
    tree, rules = network
    assert planned([*rules, rules[-1]], tree) == planned(rules, tree)
    stored = parse_freeze({"rules": rules}).model_dump(mode="json")
    assert resolve(parse_freeze(stored), tree).phases[0] == planned(rules, tree)


@given(networks())
def test_a_plan_written_out_by_name_is_the_same_plan(network: tuple[ModuleTree, Rules]) -> None:
    tree, rules = network
    phase = planned(rules, tree)
    named = [{"freeze": list(phase.frozen)}] if phase.frozen else []
    assert planned(named, tree) == phase


@given(networks())
def test_the_order_matters_only_where_unlike_rules_meet(network: tuple[ModuleTree, Rules]) -> None:
    tree, rules = network
    backwards = plan_or_none(rules[::-1], tree)
    assume(backwards is not None)
    assert backwards is not None
    for parameter in set(backwards.phases[0].frozen) ^ set(planned(rules, tree).frozen):
        assert set(verbs_for(parameter, rules, tree)) == {"freeze", "train"}
