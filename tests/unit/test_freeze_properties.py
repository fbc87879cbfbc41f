"""What holds of the freeze language for every network and every spec."""

from __future__ import annotations

import re
from itertools import pairwise

from drawn_networks import (
    Rule,
    Rules,
    glob_parts,
    networks,
    patterns,
    phases,
    plan_or_none,
    planned,
    schedules,
    trees,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shared.domain.freeze import parse_freeze, resolve
from shared.domain.freeze_patterns import compile_pattern
from shared.domain.module_tree import ModuleTree

# How long an example takes says nothing here: a busy machine is no fault of the language's.
at_any_speed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
scheduled_examples = settings(at_any_speed, max_examples=50)


def names_of(parameter: str, tree: ModuleTree) -> list[str]:
    return [name for name, canonical in tree.names.items() if canonical == parameter]


def matching(parameter: str, rules: Rules, tree: ModuleTree) -> list[Rule]:
    """The rules that match one of the parameter's names, in order."""
    return [
        rule
        for rule in rules
        if any(means(p, name, tree) for p in written(rule) for name in names_of(parameter, tree))
    ]


def written(rule: Rule) -> list[str]:
    asked = rule.get("freeze", rule.get("train"))
    return [asked] if isinstance(asked, str) else list(asked)


def means(pattern: str, name: str, tree: ModuleTree) -> bool:
    """The definition of each kind of pattern, word for word."""
    kind, colon, text = pattern.partition(":")
    if not colon:
        return naive_glob(pattern.split("."), name.split("."))
    if kind == "name":
        return text in name
    if kind == "re":
        return re.search(text, name) is not None
    if kind == "type":
        return any(within(name, module.path) for module in tree.modules if module.class_name == text)
    count = len(tree.blocks)
    counted = range(int(text)) if kind == "first" else range(count - int(text), count)
    return any(within(name, tree.blocks[place]) for place in counted)


def within(name: str, path: str) -> bool:
    return path == "" or name.startswith(path + ".")


def naive_glob(pattern: list[str], name: list[str]) -> bool:
    """The pattern equals the name or a dotted prefix of it."""
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


@at_any_speed
@given(trees(), st.lists(glob_parts, min_size=1, max_size=5))
def test_globs_match_as_defined(tree: ModuleTree, parts: list[str]) -> None:
    matches = compile_pattern(".".join(parts), tree)
    for name in tree.names:
        assert matches(name) == naive_glob(parts, name.split("."))


@at_any_speed
@given(st.data())
def test_patterns_of_every_kind_match_as_defined(data: st.DataObject) -> None:
    tree = data.draw(trees())
    assume(any(not name.startswith("last") for name in tree.names))
    pattern = data.draw(patterns(tree))
    matches = compile_pattern(pattern, tree)
    for name in tree.names:
        assert matches(name) == means(pattern, name, tree)


@scheduled_examples
@given(schedules())
def test_every_parameter_is_decided_once_in_each_phase_and_counted(
    scheduled: tuple[ModuleTree, Rules, Rules],
) -> None:
    tree, rules, entries = scheduled
    for phase in phases(rules, tree, entries):
        assert sorted(phase.trainable + phase.frozen) == sorted(tree.shapes)
        assert phase.trainable
        assert phase.n_trainable == 2 * len(phase.trainable)
        assert phase.n_frozen == 2 * len(phase.frozen)
        assert set(phase.lr_scale) <= set(phase.trainable)
        assert not set(tree.aliases) & {*phase.trainable, *phase.frozen, *phase.lr_scale}


@at_any_speed
@given(networks())
def test_the_last_rule_that_matches_any_name_of_a_parameter_wins(network: tuple[ModuleTree, Rules]) -> None:
    tree, rules = network
    phase = planned(rules, tree)
    for parameter in tree.shapes:
        last = (matching(parameter, rules, tree) or [{"train": "**"}])[-1]
        assert (parameter in phase.frozen) == ("freeze" in last)
        assert phase.lr_scale.get(parameter, 1.0) == last.get("lr_scale", 1.0)


@scheduled_examples
@given(schedules())
def test_a_phase_is_what_all_rules_up_to_its_epoch_come_to(
    scheduled: tuple[ModuleTree, Rules, Rules],
) -> None:
    tree, rules, entries = scheduled
    found = phases(rules, tree, entries)
    assert [p.from_epoch for p in found] == sorted({0, *(entry["at_epoch"] for entry in entries)})
    for phase in found:
        due = [e for at in range(1, phase.from_epoch + 1) for e in entries if e["at_epoch"] == at]
        for parameter in tree.shapes:
            last = (matching(parameter, [*rules, *due], tree) or [{"train": "**"}])[-1]
            assert (parameter in phase.frozen) == ("freeze" in last)
            assert phase.lr_scale.get(parameter, 1.0) == last.get("lr_scale", 1.0)


@scheduled_examples
@given(schedules())
def test_each_phase_written_out_by_name_is_the_same_phase(
    scheduled: tuple[ModuleTree, Rules, Rules],
) -> None:
    tree, rules, entries = scheduled
    for phase in phases(rules, tree, entries):
        named: Rules = [{"freeze": list(phase.frozen)}] if phase.frozen else []
        named += [{"train": name, "lr_scale": scale} for name, scale in phase.lr_scale.items()]
        assert planned(named, tree) == phase.model_copy(update={"from_epoch": 0})


@scheduled_examples
@given(schedules())
def test_the_order_of_entries_matters_within_an_epoch_alone(
    scheduled: tuple[ModuleTree, Rules, Rules],
) -> None:
    tree, rules, entries = scheduled
    by_epoch = {epoch: [e for e in entries if e["at_epoch"] == epoch] for epoch in (3, 1, 2)}
    regrouped = [entry for group in by_epoch.values() for entry in group]
    assert phases(rules, tree, regrouped) == phases(rules, tree, entries)


@scheduled_examples
@given(schedules())
def test_no_phase_is_like_the_one_before(scheduled: tuple[ModuleTree, Rules, Rules]) -> None:
    tree, rules, entries = scheduled
    found = phases(rules, tree, entries)
    for before, after in pairwise(found):
        assert (before.frozen, before.lr_scale) != (after.frozen, after.lr_scale)


@scheduled_examples
@given(schedules())
def test_a_module_is_still_exactly_if_all_that_it_holds_is_frozen(
    scheduled: tuple[ModuleTree, Rules, Rules],
) -> None:
    tree, rules, entries = scheduled
    for phase in phases(rules, tree, entries):

        def still(path: str, frozen: frozenset[str] = frozenset(phase.frozen)) -> bool:
            below = {c for n, c in tree.names.items() if within(n, path)}
            if below or not path:
                return bool(below) and below <= frozen
            return still(path.rpartition(".")[0])

        assert list(phase.still) == [module.path for module in tree.modules if still(module.path)]


@scheduled_examples
@given(schedules())
def test_saying_it_again_changes_nothing(scheduled: tuple[ModuleTree, Rules, Rules]) -> None:
    tree, rules, entries = scheduled
    assert planned([*rules, rules[-1]], tree) == planned(rules, tree)
    spec = parse_freeze({"rules": rules, "schedule": entries})
    stored = parse_freeze(spec.model_dump(mode="json"))
    assert resolve(stored, tree) == resolve(spec, tree)


@at_any_speed
@given(networks())
def test_the_order_matters_only_where_unlike_rules_meet(network: tuple[ModuleTree, Rules]) -> None:
    tree, rules = network
    backwards = plan_or_none(rules[::-1], tree)
    assume(backwards is not None)
    assert backwards is not None
    for parameter in set(backwards.phases[0].frozen) ^ set(planned(rules, tree).frozen):
        verbs = {verb for rule in matching(parameter, rules, tree) for verb in rule if verb != "lr_scale"}
        assert verbs == {"freeze", "train"}


@scheduled_examples
@given(schedules(), st.sampled_from([0.5, 0.9]))
def test_layer_decay_multiplies_by_depth_and_decides_nothing(
    scheduled: tuple[ModuleTree, Rules, Rules], decay: float
) -> None:
    tree, rules, entries = scheduled
    decayed = plan_or_none(rules, tree, entries, layer_decay=decay)
    assume(decayed is not None)
    assert decayed is not None
    for plain, phase in zip(phases(rules, tree, entries), decayed.phases, strict=True):
        assert (phase.trainable, phase.frozen, phase.still) == (plain.trainable, plain.frozen, plain.still)
        for name in phase.trainable:
            behind = [path for path in tree.blocks if within(name, path)]
            if behind or within(name, "last"):
                depth = len(tree.blocks) - tree.blocks.index(behind[0]) if behind else 0
                factor = phase.lr_scale.get(name, 1.0) / plain.lr_scale.get(name, 1.0)
                assert abs(factor / decay**depth - 1) < 1e-12
