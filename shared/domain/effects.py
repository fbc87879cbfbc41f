"""Hyperparameters that network, freeze plan or data leave without effect: refused, not silently ignored."""

from __future__ import annotations

from shared.domain.epoch_steps import steps_per_epoch
from shared.domain.errors import Invalid
from shared.domain.freeze import FreezePlan, PlanPhase
from shared.domain.module_tree import ModuleTree, is_below
from shared.domain.spec import ResolvedHyperparameters

SYNCHRONISED = frozenset({"BatchNorm1d", "BatchNorm2d", "BatchNorm3d"})


def check_effects(asked: ResolvedHyperparameters, tree: ModuleTree, plan: FreezePlan) -> None:
    """Raises Invalid for what is certain to change nothing; the trainer's trials find the rest."""
    if asked.sync_batch_norm and not any(_trains_batch_norm(tree, phase) for phase in plan.phases):
        raise _no_effect("sync_batch_norm", "no BatchNorm layer of this model trains")
    if asked.gradient_checkpointing:
        if not any(_trains_more_than_head(tree, phase) for phase in plan.phases):
            raise _no_effect("gradient_checkpointing", "only the head trains, and no gradient passes a block")
        if not _has_layers_to_run_again(tree):
            raise _no_effect("gradient_checkpointing", "this model's blocks are single layers")


def check_warmup(asked: ResolvedHyperparameters, n_training: int, world_size: int) -> None:
    """Raises Invalid where the job would be over before its learning rate has risen to what was asked for."""
    per_epoch = steps_per_epoch(n_training, asked.batch_size, world_size)
    total = asked.n_epochs * per_epoch
    if asked.warmup_steps > total:
        raise Invalid(
            f"warmup_steps {asked.warmup_steps} is more than the {total} steps of this job ({asked.n_epochs} "
            f"epochs of {per_epoch}), so that learning_rate would never be reached; give {total} at most",
            param="hyperparameters.warmup_steps",
            code="warmup_too_long",
        )


def _trains_batch_norm(tree: ModuleTree, phase: PlanPhase) -> bool:
    layers = {module.path for module in tree.modules if module.class_name in SYNCHRONISED}
    return not layers.issubset(phase.still)


def _trains_more_than_head(tree: ModuleTree, phase: PlanPhase) -> bool:
    return any(not any(is_below(name, path) for path in tree.head) for name in phase.trainable)


def _has_layers_to_run_again(tree: ModuleTree) -> bool:
    """A block with modules inside, or a Sequential that holds several."""
    parents = [module.path.rpartition(".")[0] for module in tree.modules if module.path]
    in_rows = {path for path in parents if path and tree.by_path[path].class_name == "Sequential"}
    return any(block in parents or block.rpartition(".")[0] in in_rows for block in tree.blocks)


def _no_effect(name: str, why: str) -> Invalid:
    return Invalid(
        f"{name} would change nothing: {why}; leave it out",
        param=f"hyperparameters.{name}",
        code="no_effect",
    )
