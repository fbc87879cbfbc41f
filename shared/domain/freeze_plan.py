"""What a freeze spec comes to on one network: what trains, what is frozen and what is still, as data."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.module_tree import ModuleTree

# Normalisation that differs between train() and eval(). FrozenBatchNorm2d is the same in both.
NORMALISATION = frozenset(
    {
        *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"),
        *("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"),
    }
)


class PlanPhase(BaseModel):
    """What holds from the start of epoch `from_epoch` (counted from 0) until the next phase.

    `trainable` and `frozen` are parameter names in the network's own order; together they are all of them.
    `still` names every single module in eval mode: children stand beside their parents, so set each module's
    mode alone. `unproved_buffers` names the frozen normalisation layers whose statistics go on moving where
    `batch_norm` is "train". `n_trainable` and `n_frozen` count elements.
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


class FreezePlan(BaseModel):
    """All phases in order, and the further names of shared parameters, each with the name that phases use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    phases: tuple[PlanPhase, ...]
    aliases: dict[str, str] = Field(default_factory=dict)


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
