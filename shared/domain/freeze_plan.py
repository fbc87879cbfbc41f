"""What a freeze spec comes to on one network: what trains, what is frozen and what is still, as data."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.module_tree import ModuleTree

# Normalisation that differs between train() and eval(). FrozenBatchNorm2d is the same in both.
NORMALISATION = frozenset(
    {
        *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"),
        *("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"),
    }
)


class PlanStep(BaseModel):
    """One of the network's own training steps within a phase: what it alone trains.

    While it runs all else is frozen, and `still` as in a phase. `loss` is the network's method that gives its
    loss. Where `trainable` is empty, the phase freezes all that the step would train: it is left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    loss: str
    trainable: tuple[str, ...]
    still: tuple[str, ...]
    n_trainable: int
    unproved_buffers: tuple[str, ...] = ()

    @property
    def is_left_out(self) -> bool:
        return not self.trainable


class PlanPhase(BaseModel):
    """What holds from the start of epoch `from_epoch` (counted from 0) until the next phase.

    `trainable` and `frozen` are parameter names in the network's own order; together they are all of them.
    `still` names every single module in eval mode: children stand beside their parents, so set each module's
    mode alone. `unproved_buffers` names the frozen normalisation layers whose statistics go on moving where
    `batch_norm` is "train". `n_trainable` and `n_frozen` count elements. `steps` are those of a network that
    brings its own: on every batch they run one after another, and what none of them trains is frozen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_epoch: int
    trainable: tuple[str, ...]
    frozen: tuple[str, ...]
    still: tuple[str, ...]
    lr_scale: dict[str, float] = Field(default_factory=dict)
    n_trainable: int
    n_frozen: int
    unproved_buffers: tuple[str, ...] = ()
    steps: tuple[PlanStep, ...] = ()

    def in_step(self, step: PlanStep) -> PlanPhase:
        """What holds while `step` runs."""
        trains = set(step.trainable)
        return PlanPhase(
            from_epoch=self.from_epoch,
            trainable=step.trainable,
            frozen=tuple(name for name in (*self.trainable, *self.frozen) if name not in trains),
            still=step.still,
            lr_scale={name: scale for name, scale in self.lr_scale.items() if name in trains},
            n_trainable=step.n_trainable,
            n_frozen=self.n_trainable + self.n_frozen - step.n_trainable,
            unproved_buffers=step.unproved_buffers,
        )


class FreezePlan(BaseModel):
    """All phases in order, and the further names of shared parameters, each with the name that phases use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    phases: tuple[PlanPhase, ...]
    aliases: dict[str, str] = Field(default_factory=dict)


def plan_phase(
    from_epoch: int,
    tree: ModuleTree,
    trainable: Collection[str],
    lr_scale: Mapping[str, float],
    *,
    statistics_move: bool,
    steps: tuple[PlanStep, ...] = (),
) -> PlanPhase:
    """The phase that trains `trainable` and nothing else.

    With `statistics_move` frozen normalisation layers are not still. Scales of what is frozen are left out.
    """
    trained = {name: n for name, n in tree.n_elements.items() if name in trainable}
    frozen = {name: n for name, n in tree.n_elements.items() if name not in trained}
    still, exempt = still_and_exempt(tree, trained, statistics_move=statistics_move)
    return PlanPhase(
        from_epoch=from_epoch,
        trainable=tuple(trained),
        frozen=tuple(frozen),
        still=still,
        lr_scale={name: scale for name, scale in lr_scale.items() if name in trained},
        n_trainable=sum(trained.values()),
        n_frozen=sum(frozen.values()),
        unproved_buffers=exempt,
        steps=steps,
    )


def still_and_exempt(
    tree: ModuleTree, trainable: Collection[str], *, statistics_move: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(the modules in eval mode, the frozen normalisation layers that are not, so that statistics move)"""
    still = still_modules(tree, trainable)
    exempt = set(normalisation_layers(tree, still)) if statistics_move else set()
    return (
        tuple(path for path in still if path not in exempt),
        tuple(path for path in still if path in exempt and tree.by_path[path].buffers),
    )


def still_modules(tree: ModuleTree, trainable: Collection[str]) -> list[str]:
    """The modules with parameters below them, all of those frozen, and those that follow such an ancestor."""
    training = _modules_above(tree, trainable)
    is_still: dict[str, bool] = {}
    for module in tree.modules:
        path = module.path
        if path in tree.holders:
            is_still[path] = path not in training
        else:
            is_still[path] = is_still.get(path.rpartition(".")[0], False)
    return [path for path, still in is_still.items() if still]


def normalisation_layers(tree: ModuleTree, paths: Collection[str]) -> list[str]:
    """Those of `paths` that are normalisation layers by their exact class name."""
    return [path for path in paths if tree.by_path[path].class_name in NORMALISATION]


def _modules_above(tree: ModuleTree, trainable: Collection[str]) -> Collection[str]:
    """Every module with one of the `trainable` parameters below it, under any of its names."""
    paths: set[str] = set()
    for name, canonical in tree.names.items():
        path = name if canonical in trainable else ""
        while path and (path := path.rpartition(".")[0]) not in paths:
            paths.add(path)
    return paths
