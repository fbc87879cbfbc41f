"""The freeze language: what a spec means for one network, phase by phase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from shared.domain.freeze_checks import check_batch_norm, check_epochs, check_head_trains, check_step
from shared.domain.freeze_plan import FreezePlan, PlanPhase, plan_phase
from shared.domain.freeze_rates import check_layer_decay, depth_factors, learning_rate_scales
from shared.domain.freeze_rules import Step, steps
from shared.domain.freeze_spec import FreezeRule, FreezeSpec, ScheduleEntry, parse_freeze
from shared.domain.module_tree import ModuleTree
from shared.domain.training_steps import TrainingStep, with_steps

__all__ = ["FreezePlan", "FreezeRule", "FreezeSpec", "PlanPhase", "ScheduleEntry", "parse_freeze", "resolve"]


def resolve(
    spec: FreezeSpec,
    tree: ModuleTree,
    *,
    head_replaced: bool = False,
    n_epochs: int | None = None,
    training_steps: Sequence[TrainingStep] = (),
) -> FreezePlan:
    """What `spec` means for `tree`, whose head is already the one that will be trained.

    `head_replaced` says that the head is new and holds random values, so that freezing it from the start is
    an error. With `n_epochs`, so is a schedule entry that the job would not reach. `training_steps` are those
    of a network that is trained by its own: they train no more than the spec leaves them. Raises `Invalid`.
    """
    if n_epochs is not None:
        check_epochs(spec, n_epochs)
    found = list(steps(spec, tree))
    for step in found:
        check_step(step, tree)
    if head_replaced:
        check_head_trains(tree, found[0])
    factors = depth_factors(tree, spec.layer_decay)
    phases = [_phase(step, tree, factors, statistics_move=spec.batch_norm == "train") for step in found]
    if training_steps:
        phases = with_steps(phases, spec, tree, training_steps)
    check_layer_decay(spec.layer_decay, factors, [phase.lr_scale for phase in phases])
    check_batch_norm(spec, tree, [names for phase in phases for names in _trained_at_once(phase)])
    return FreezePlan(phases=tuple(phases), aliases=dict(tree.aliases))


def _phase(step: Step, tree: ModuleTree, factors: Mapping[str, float], *, statistics_move: bool) -> PlanPhase:
    trained = [name for name, decision in step.after.items() if decision.trains]
    scales = learning_rate_scales(step, factors)
    return plan_phase(step.from_epoch, tree, trained, scales, statistics_move=statistics_move)


def _trained_at_once(phase: PlanPhase) -> Iterator[Sequence[str]]:
    """What trains while the rest is frozen: all that the phase trains, or what each of its steps does."""
    if phase.steps:
        yield from (step.trainable for step in phase.steps if not step.is_left_out)
    else:
        yield phase.trainable
