"""The rules of a spec on one network: what each matches, and what they come to, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from shared.domain.errors import Invalid
from shared.domain.freeze_patterns import compile_pattern, matches_nothing
from shared.domain.freeze_spec import FreezeRule, FreezeSpec, ScheduleEntry, located_rules
from shared.domain.module_tree import ModuleTree


class Decision(NamedTuple):
    """What holds for a parameter: whether it trains, and the factor on its learning rate."""

    trains: bool = True
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule, its place in the request (`freeze.rules[0]`), and the parameters that it matches."""

    rule: FreezeRule
    param: str
    names: frozenset[str]

    @property
    def decision(self) -> Decision:
        return Decision(self.rule.trains, self.rule.lr_scale or 1.0)

    @property
    def words(self) -> str:
        return f"{{'{self.rule.verb}': {list(self.rule.patterns)}}}"


@dataclass(frozen=True, slots=True)
class Step:
    """The rules appended at the start of epoch `from_epoch`, and what held before and holds after them.

    Both mappings have every parameter, in the network's own order.
    """

    from_epoch: int
    rules: tuple[PlacedRule, ...]
    before: Mapping[str, Decision]
    after: Mapping[str, Decision]


def steps(spec: FreezeSpec, tree: ModuleTree) -> Iterator[Step]:
    """The steps of `spec` in the order of their epochs; the first one is the rules' own, at epoch 0."""
    before = dict.fromkeys(tree.shapes, Decision())
    for epoch, placed in _by_epoch(spec, tree):
        after = dict(before)
        for rule in placed:
            after.update(dict.fromkeys(rule.names, rule.decision))
        yield Step(epoch, placed, before, after)
        before = after


def _by_epoch(spec: FreezeSpec, tree: ModuleTree) -> Iterator[tuple[int, tuple[PlacedRule, ...]]]:
    placed = [_place(rule, param, tree) for param, rule in located_rules(spec)]
    first = len(spec.rules)
    yield 0, tuple(placed[:first])
    for epoch, rules in groupby(sorted(placed[first:], key=_epoch), key=_epoch):
        yield epoch, tuple(rules)


def _epoch(placed: PlacedRule) -> int:
    return placed.rule.at_epoch if isinstance(placed.rule, ScheduleEntry) else 0


def _place(rule: FreezeRule, param: str, tree: ModuleTree) -> PlacedRule:
    names: set[str] = set()
    for i, pattern in enumerate(rule.patterns):
        matches = compile_pattern(pattern, tree)
        found = {canonical for name, canonical in tree.names.items() if matches(name)}
        if not found:
            raise Invalid(
                matches_nothing(pattern, tree),
                param=f"{param}.{rule.verb}[{i}]",
                code="pattern_matches_nothing",
            )
        names |= found
    return PlacedRule(rule, param, frozenset(names))
