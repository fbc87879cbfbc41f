"""The freeze language: what a spec means for one network, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping

from shared.domain.freeze_checks import check_batch_norm, check_epochs, check_head_trains, check_step
from shared.domain.freeze_plan import FreezePlan, PlanPhase, normalisation_layers, still_modules
from shared.domain.freeze_rates import check_layer_decay, depth_factors, learning_rate_scales
from shared.domain.freeze_rules import Step, steps
from shared.domain.freeze_spec import FreezeRule, FreezeSpec, ScheduleEntry, parse_freeze
from shared.domain.module_tree import ModuleTree

__all__ = ["FreezePlan", "FreezeRule", "FreezeSpec", "PlanPhase", "ScheduleEntry", "parse_freeze", "resolve"]


def resolve(
    spec: FreezeSpec, tree: ModuleTree, *, head_replaced: bool = False, n_epochs: int | None = None
) -> FreezePlan:
    """What `spec` means for `tree`, whose head is already the one that will be trained.

    `head_replaced` says that the head is new and holds random values, so that freezing it from the start is
    an error. With `n_epochs`, so is a schedule entry that the job would not reach. Raises `Invalid`.
    """
    if n_epochs is not None:
        check_epochs(spec, n_epochs)
    found = list(steps(spec, tree))
    for step in found:
        check_step(step)
    if head_replaced:
        check_head_trains(tree, found[0])
    factors = depth_factors(tree, spec.layer_decay)
    phases = [_phase(step, tree, factors, statistics_move=spec.batch_norm == "train") for step in found]
    check_layer_decay(spec.layer_decay, factors, [phase.lr_scale for phase in phases])
    check_batch_norm(spec, tree, [phase.trainable for phase in phases])
    return FreezePlan(phases=tuple(phases), aliases=dict(tree.aliases))


def _phase(step: Step, tree: ModuleTree, factors: Mapping[str, float], *, statistics_move: bool) -> PlanPhase:
    trained = {name: tree.n_elements[name] for name, decision in step.after.items() if decision.trains}
    frozen = {name: n for name, n in tree.n_elements.items() if name not in trained}
    still = still_modules(tree, trained)
    exempt = set(normalisation_layers(tree, still)) if statistics_move else set()
    return PlanPhase(
        from_epoch=step.from_epoch,
        trainable=tuple(trained),
        frozen=tuple(frozen),
        still=tuple(path for path in still if path not in exempt),
        lr_scale=learning_rate_scales(step, factors),
        n_trainable=sum(trained.values()),
        n_frozen=sum(frozen.values()),
        unproved_buffers=tuple(path for path in still if path in exempt and tree.by_path[path].buffers),
    )
