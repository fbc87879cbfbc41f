"""The freeze language: what a person writes (`FreezeSpec`), and what it means for a network (`resolve`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails

from shared.domain.errors import Invalid, NotSupportedYet
from shared.domain.freeze_patterns import HEAD, check_pattern, compile_pattern, is_glob, nearest
from shared.domain.freeze_plan import FreezePlan, PlanPhase, normalisation_layers, still_modules
from shared.domain.module_tree import ModuleTree, is_below

__all__ = ["FreezePlan", "FreezeRule", "FreezeSpec", "PlanPhase", "ScheduleEntry", "parse_freeze", "resolve"]

MAX_PATTERNS = 2_000
MAX_GLOBS = 200


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


PatternText = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=300)]
Patterns = Annotated[
    tuple[PatternText, ...],
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=PatternText | list[PatternText]),
]


class FreezeRule(BaseModel):
    """Freezes or trains what its patterns match. `lr_scale` multiplies the learning rate where it trains."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    freeze: Patterns | None = None
    train: Patterns | None = None
    lr_scale: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.freeze is None) == (self.train is None):
            raise ValueError("a rule has either 'freeze' or 'train', and exactly one of them")
        return self

    @property
    def trains(self) -> bool:
        return self.train is not None

    @property
    def patterns(self) -> tuple[str, ...]:
        return self.freeze or self.train or ()

    @property
    def verb(self) -> str:
        return "train" if self.trains else "freeze"


class ScheduleEntry(FreezeRule):
    """A rule that is appended from the start of epoch `at_epoch`, counted from 0."""

    at_epoch: int = Field(ge=1)


class FreezeSpec(BaseModel):
    """What stays fixed. Without rules everything trains; the last rule that matches a parameter wins."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rules: tuple[FreezeRule, ...] = ()
    batch_norm: Literal["freeze", "train"] = "freeze"
    schedule: tuple[ScheduleEntry, ...] = ()
    layer_decay: float | None = Field(None, gt=0, le=1)
    find_unused_parameters: Literal["auto"] | StrictBool = "auto"

    @model_validator(mode="before")
    @classmethod
    def _from_shorthand(cls, value: Any) -> Any:
        if isinstance(value, str):
            return _from_word(value)
        if isinstance(value, list | tuple):
            return {"rules": [{"freeze": value}]}
        if not isinstance(value, Mapping):
            raise Invalid(
                f'{value!r} is no freeze spec, which is "backbone", "none", '
                'a list of patterns, or {"rules": [...]}',
                param="freeze",
            )
        return value

    @field_validator("find_unused_parameters", mode="before")
    @classmethod
    def _auto_or_a_truth(cls, value: Any) -> Any:
        if value != "auto" and not isinstance(value, bool):
            raise ValueError(f'it is "auto", true or false, not {value!r}')
        return value

    @model_validator(mode="after")
    def _supported_and_well_formed(self) -> Self:
        _check_supported(self)
        _check_size(self)
        for where, pattern in _located_patterns(self):
            check_pattern(pattern, where)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        words = {"type": "string", "enum": ["backbone", "none"]}
        names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        return {"anyOf": [words, names, handler(core)]}


def parse_freeze(value: Any) -> FreezeSpec:
    """Reads the `freeze` field of a request: the full form, a shorthand, or nothing (which freezes nothing).

    Raises `Invalid` (or `NotSupportedYet`), whose `param` says where in the field the fault is.
    """
    if isinstance(value, FreezeSpec):
        return value
    try:
        return FreezeSpec.model_validate({} if value is None else value)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False)[0]) from None


def resolve(spec: FreezeSpec, tree: ModuleTree, *, head_replaced: bool = False) -> FreezePlan:
    """What `spec` means for `tree`, whose head is already the one that will be trained.

    `head_replaced` says that the head is new and holds random values, so that freezing it is an error.
    """
    phases = [_phase(epoch, rules, spec, tree, head_replaced) for epoch, rules in _rules_by_epoch(spec)]
    _check_batch_norm(spec, tree, phases)
    return FreezePlan(phases=tuple(phases), aliases=dict(tree.aliases))


@dataclass(frozen=True, slots=True)
class _Matched:
    """A rule with the parameters that it matches and its place in the request."""

    rule: FreezeRule
    param: str
    names: frozenset[str]


def _rules_by_epoch(spec: FreezeSpec) -> Iterator[tuple[int, Sequence[FreezeRule]]]:
    """The rules that hold from each epoch on."""
    yield 0, spec.rules


def _phase(
    from_epoch: int, rules: Sequence[FreezeRule], spec: FreezeSpec, tree: ModuleTree, head_replaced: bool
) -> PlanPhase:
    matched = [_match(rule, f"freeze.rules[{i}]", tree) for i, rule in enumerate(rules)]
    decided_by = {name: i for i, match in enumerate(matched) for name in match.names}
    trainable = {name: name not in decided_by or rules[decided_by[name]].trains for name in tree.shapes}
    _check_none_undone(matched, trainable)
    _check_something_trains(trainable)
    if head_replaced:
        _check_head_trains(tree, trainable)
    return _as_phase(from_epoch, tree, trainable, statistics_move=spec.batch_norm == "train")


def _match(rule: FreezeRule, param: str, tree: ModuleTree) -> _Matched:
    names: set[str] = set()
    for i, pattern in enumerate(rule.patterns):
        matches = compile_pattern(pattern, tree)
        found = {canonical for name, canonical in tree.names.items() if matches(name)}
        if not found:
            raise _matches_nothing(pattern, f"{param}.{rule.verb}[{i}]", tree)
        names |= found
    return _Matched(rule, param, frozenset(names))


def _as_phase(
    from_epoch: int, tree: ModuleTree, trainable: Mapping[str, bool], *, statistics_move: bool
) -> PlanPhase:
    trained = {name: tree.n_elements[name] for name, trains in trainable.items() if trains}
    frozen = {name: tree.n_elements[name] for name, trains in trainable.items() if not trains}
    still = still_modules(tree, trained)
    exempt = set(normalisation_layers(tree, still)) if statistics_move else set()
    return PlanPhase(
        from_epoch=from_epoch,
        trainable=tuple(trained),
        frozen=tuple(frozen),
        still=tuple(path for path in still if path not in exempt),
        n_trainable=sum(trained.values()),
        n_frozen=sum(frozen.values()),
        unproved_buffers=tuple(path for path in still if path in exempt and tree.by_path[path].buffers),
    )


def _check_none_undone(matched: Sequence[_Matched], trainable: Mapping[str, bool]) -> None:
    for match in matched:
        if all(trainable[name] != match.rule.trains for name in match.names):
            raise Invalid(
                f"later rules undo {{'{match.rule.verb}': {list(match.rule.patterns)}}} entirely; "
                "the last rule that matches wins, so move this one down, or drop it",
                param=match.param,
                code="freeze_rule_undone",
            )


def _check_something_trains(trainable: Mapping[str, bool]) -> None:
    if not any(trainable.values()):
        raise Invalid(
            f'nothing is left to train; add {{"train": "{HEAD}"}} as the last rule to train the head',
            param="freeze",
            code="nothing_trainable",
        )


def _check_head_trains(tree: ModuleTree, trainable: Mapping[str, bool]) -> None:
    fixed = [
        n for n, trains in trainable.items() if not trains and any(is_below(n, path) for path in tree.head)
    ]
    if fixed:
        raise Invalid(
            f"the head is new, and these rules would fix its random values in {fixed}; "
            f'add {{"train": "{HEAD}"}} as the last rule',
            param="freeze",
            code="new_head_frozen",
        )


def _check_batch_norm(spec: FreezeSpec, tree: ModuleTree, phases: Sequence[PlanPhase]) -> None:
    if spec.batch_norm == "freeze":
        return
    still = {path for phase in phases for path in still_modules(tree, set(phase.trainable))}
    if not normalisation_layers(tree, still):
        raise Invalid(
            'batch_norm "train" would change nothing, as no normalisation layer is frozen here; leave it out',
            param="freeze.batch_norm",
            code="no_effect",
        )


def _matches_nothing(pattern: str, param: str, tree: ModuleTree) -> Invalid:
    wanted = pattern.removeprefix("name:")
    if wanted == HEAD:
        problem = "this model has no known head; name the module"
    elif pattern in tree.by_path:
        problem = f"{pattern!r} is a module without parameters, so there is nothing to decide"
    else:
        problem = f"{pattern!r} matches no parameter of this model"
    near = ", ".join(nearest(wanted, tree.paths_and_names))
    return Invalid(f"{problem}; the nearest names are {near}", param=param, code="pattern_matches_nothing")


def _check_supported(spec: FreezeSpec) -> None:
    if spec.schedule:
        raise NotSupportedYet("a schedule is not supported yet", param="freeze.schedule")
    if spec.layer_decay is not None:
        raise NotSupportedYet("layer_decay is not supported yet", param="freeze.layer_decay")
    for i, rule in enumerate(spec.rules):
        if rule.lr_scale is not None:
            raise NotSupportedYet("lr_scale is not supported yet", param=f"freeze.rules[{i}].lr_scale")


def _check_size(spec: FreezeSpec) -> None:
    patterns = [pattern for _, pattern in _located_patterns(spec)]
    globs = sum(map(is_glob, patterns))
    if len(patterns) > MAX_PATTERNS or globs > MAX_GLOBS:
        raise Invalid(
            f"{len(patterns)} patterns, {globs} of them with wildcards, are too many: "
            f"one spec may have {MAX_PATTERNS}, and {MAX_GLOBS} with wildcards",
            param="freeze.rules",
            code="too_many_patterns",
        )


def _located_patterns(spec: FreezeSpec) -> Iterator[tuple[str, str]]:
    for i, rule in enumerate(spec.rules):
        for j, pattern in enumerate(rule.patterns):
            yield f"freeze.rules[{i}].{rule.verb}[{j}]", pattern


def _from_word(word: str) -> dict[str, Any]:
    if word == "none":
        return {}
    if word == "backbone":
        return {"rules": [{"freeze": "**"}, {"train": HEAD}]}
    raise Invalid(
        f'{word!r} is no shorthand: a bare string is only "backbone" or "none"; '
        f'to freeze by a pattern write a list, as in ["{word}"]',
        param="freeze",
    )


def _invalid(error: ErrorDetails) -> Invalid:
    where = "freeze"
    for step in error["loc"]:
        where += f"[{step}]" if isinstance(step, int) else f".{step}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = FreezeRule if len(error["loc"]) > 1 else FreezeSpec
        message = f"{error['loc'][-1]!r} is no field here; known are {', '.join(known.model_fields)}"
    return Invalid(message, param=where)
