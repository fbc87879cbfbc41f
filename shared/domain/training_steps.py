"""Training steps of a network's own: read as plain data, and held against its freeze plan.

A network offers them as its attribute `training_steps`, in types that need nothing of Thaw:

    training_steps = (
        {"name": "discriminator", "train": "discriminator", "loss": "discriminator_loss"},
        {"name": "generator", "train": ["generator"], "loss": "generator_loss"},
    )

On every batch all of them run, in this order; each moves what its patterns match, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from shared.domain.errors import Invalid
from shared.domain.freeze_patterns import check_pattern, compile_pattern, matches_nothing
from shared.domain.freeze_plan import PlanPhase, PlanStep, plan_phase, still_and_exempt
from shared.domain.freeze_spec import FreezeSpec, Patterns, located_rules
from shared.domain.module_tree import ModuleTree

ATTRIBUTE = "training_steps"
MOST_STEPS = 16


class TrainingStep(BaseModel):
    """One step: `train` are patterns as in a freeze rule, `loss` names a method of the network.

    The method takes (images, targets) and returns the mean loss over the batch, a tensor of one number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    train: Patterns
    loss: Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]


# What each step would train if nothing were frozen, by canonical names.
_Matched = Mapping[TrainingStep, Collection[str]]
_STEPS: TypeAdapter[tuple[TrainingStep, ...]] = TypeAdapter(
    Annotated[tuple[TrainingStep, ...], Field(min_length=1, max_length=MOST_STEPS)]
)


def read_steps(value: Any) -> tuple[TrainingStep, ...]:
    """What a network's `training_steps` say. Raises Invalid, whose `param` is the place in them."""
    try:
        steps = _STEPS.validate_python(value)
    except ValidationError as error:
        raise _malformed(error.errors(include_url=False)[0]) from None
    for name, count in Counter(step.name for step in steps).most_common(1):
        if count > 1:
            raise Invalid(f"{count} steps have the name {name!r}; give each its own", param=ATTRIBUTE)
    for i, step in enumerate(steps):
        for j, pattern in enumerate(step.train):
            check_pattern(pattern, f"{ATTRIBUTE}[{i}].train[{j}]")
    return steps


def check_steps(steps: Sequence[TrainingStep], tree: ModuleTree) -> None:
    """Refuses a pattern that matches no parameter of the network, with the nearest names."""
    for i, step in enumerate(steps):
        for j, pattern in enumerate(step.train):
            if not _matched(tree, [pattern]):
                raise Invalid(
                    matches_nothing(pattern, tree),
                    param=f"{ATTRIBUTE}[{i}].train[{j}]",
                    code="pattern_matches_nothing",
                )


def with_steps(
    phases: Sequence[PlanPhase], spec: FreezeSpec, tree: ModuleTree, steps: Sequence[TrainingStep]
) -> list[PlanPhase]:
    """The phases of `spec` on a network that is trained by `steps`: each says what it leaves to each step.

    What no step trains is frozen, whatever the rules leave to train. Raises Invalid for a rule that would
    train such parameters only, and where all steps of a phase would train nothing.
    """
    check_steps(steps, tree)
    matched = {step: _matched(tree, step.train) for step in steps}
    _check_rules_reach_a_step(spec, tree, matched)
    move = spec.batch_norm == "train"
    return [_with_steps(phase, tree, matched, statistics_move=move) for phase in phases]


def _with_steps(phase: PlanPhase, tree: ModuleTree, matched: _Matched, *, statistics_move: bool) -> PlanPhase:
    left = []
    for step, names in matched.items():
        trained = {name: tree.n_elements[name] for name in phase.trainable if name in names}
        still, exempt = still_and_exempt(tree, trained, statistics_move=statistics_move)
        left.append(
            PlanStep(
                name=step.name,
                loss=step.loss,
                trainable=tuple(trained),
                still=still,
                n_trainable=sum(trained.values()),
                unproved_buffers=exempt,
            )
        )
    moved = {name for step in left for name in step.trainable}
    if not moved:
        raise _no_step_left(phase, matched)
    return plan_phase(
        phase.from_epoch, tree, moved, phase.lr_scale, statistics_move=statistics_move, steps=tuple(left)
    )


def _matched(tree: ModuleTree, patterns: Sequence[str]) -> set[str]:
    """The parameters, by their canonical names, that any of `patterns` matches."""
    matchers = [compile_pattern(pattern, tree) for pattern in patterns]
    return {canonical for name, canonical in tree.names.items() if any(match(name) for match in matchers)}


def _check_rules_reach_a_step(spec: FreezeSpec, tree: ModuleTree, matched: _Matched) -> None:
    reached = set[str]().union(*matched.values())
    for param, rule in located_rules(spec):
        if rule.trains and not _matched(tree, rule.patterns) & reached:
            raise Invalid(
                f"none of the model's training steps trains what {{'train': {list(rule.patterns)}}} matches; "
                f"they train {_in_words(matched)}",
                param=param,
                code="no_effect",
            )


def _no_step_left(phase: PlanPhase, steps: Iterable[TrainingStep]) -> Invalid:
    when = f"from epoch {phase.from_epoch} on " if phase.from_epoch else ""
    return Invalid(
        f"{when}every training step of the model would train nothing, as all of it is frozen; "
        f"leave one of them something to train: {_in_words(steps)}",
        param="freeze",
        code="nothing_trainable",
    )


def _in_words(steps: Iterable[TrainingStep]) -> str:
    return "; ".join(f"{step.name}: {', '.join(step.train)}" for step in steps)


def _malformed(error: ErrorDetails) -> Invalid:
    where = ATTRIBUTE
    for part in error["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
    form = '{"name": ..., "train": pattern or list of patterns, "loss": name of a method}'
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = f"{error['loc'][-1]!r} is no field here"
    return Invalid(f"{message}; it is a sequence of 1 to {MOST_STEPS} steps, each {form}", param=where)
