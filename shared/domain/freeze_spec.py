"""What a person writes to say what stays fixed: rules, a schedule of further rules, and their policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from reprlib import repr as shortened
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

from shared.domain.errors import Invalid
from shared.domain.freeze_patterns import HEAD, check_pattern, is_searched

MAX_PATTERNS = 2_000
MAX_SEARCHED = 200
MAX_SCHEDULE_EPOCHS = 128


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
    lr_scale: float | None = Field(
        None, ge=1e-9, le=1_000, strict=True, description="with train: the factor on the learning rate"
    )

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

    at_epoch: int = Field(ge=1, lt=10_000, strict=True, description="counted from 0, so at least 1")

    @field_validator("at_epoch", mode="before")
    @classmethod
    def _after_the_rules(cls, value: Any) -> Any:
        if value == 0:
            raise ValueError("epoch 0 is where the rules themselves begin: write it as a rule, or give 1")
        return value


class FreezeSpec(BaseModel):
    """What stays fixed. Without rules everything trains; the last rule that matches a parameter wins."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rules: tuple[FreezeRule, ...] = ()
    batch_norm: Literal["freeze", "train"] = "freeze"
    schedule: tuple[ScheduleEntry, ...] = ()
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        strict=True,
        description="the head learns at the full rate, the last block at this factor, the one before at its "
        "square, and so on",
    )
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
            raise ValueError(f'it is "auto", true or false, not {shortened(value)}')
        return value

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        _check_size(self)
        for where, rule in located_rules(self):
            _check_rule(rule, where)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        words = {"type": "string", "enum": ["backbone", "none"]}
        names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        return {"anyOf": [words, names, handler(core)]}


def parse_freeze(value: Any) -> FreezeSpec:
    """Reads the `freeze` field of a request: the full form, a shorthand, or nothing (which freezes nothing).

    Raises `Invalid`, whose `param` says where in the field the fault is.
    """
    if isinstance(value, FreezeSpec):
        return value
    try:
        return FreezeSpec.model_validate({} if value is None else value)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False)[0]) from None


def located_rules(spec: FreezeSpec) -> Iterator[tuple[str, FreezeRule]]:
    """Every rule, those of the schedule included, with its place in the request."""
    for i, rule in enumerate(spec.rules):
        yield f"freeze.rules[{i}]", rule
    for i, entry in enumerate(spec.schedule):
        yield f"freeze.schedule[{i}]", entry


def _check_rule(rule: FreezeRule, where: str) -> None:
    for j, pattern in enumerate(rule.patterns):
        check_pattern(pattern, f"{where}.{rule.verb}[{j}]")
    if rule.lr_scale is not None and not rule.trains:
        raise Invalid(
            "what is frozen has no learning rate to scale; lr_scale goes with 'train'",
            param=f"{where}.lr_scale",
        )


def _check_size(spec: FreezeSpec) -> None:
    patterns = [pattern for _, rule in located_rules(spec) for pattern in rule.patterns]
    searched = sum(map(is_searched, patterns))
    if len(patterns) > MAX_PATTERNS or searched > MAX_SEARCHED:
        raise Invalid(
            f"{len(patterns)} patterns, {searched} of them with wildcards or expressions, are too many: "
            f"one spec may have {MAX_PATTERNS}, and {MAX_SEARCHED} with wildcards or expressions",
            param="freeze.rules",
            code="too_many_patterns",
        )
    epochs = len({entry.at_epoch for entry in spec.schedule})
    if epochs > MAX_SCHEDULE_EPOCHS:
        raise Invalid(
            f"the schedule changes at {epochs} epochs, and it may at {MAX_SCHEDULE_EPOCHS}",
            param="freeze.schedule",
            code="too_many_phases",
        )


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
        message = f"{error['loc'][-1]!r} is no field here; known are {', '.join(_fields_at(error['loc']))}"
    return Invalid(message, param=where)


def _fields_at(place: tuple[int | str, ...]) -> Iterable[str]:
    if len(place) == 1:
        return FreezeSpec.model_fields
    return ScheduleEntry.model_fields if place[0] == "schedule" else FreezeRule.model_fields
