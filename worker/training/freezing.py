"""Applies a freeze plan to a network: what gets gradients, what stays in eval mode, what may move at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from shared.domain.freeze import PlanPhase
from shared.domain.module_tree import join
from worker.training.errors import TrainingFailed


@dataclass(frozen=True)
class FrozenPart:
    """The tensors that a phase does not move, or that none of several moves, by name."""

    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.parameters) | frozenset(self.buffers)


def frozen_part(model: nn.Module, phases: Sequence[PlanPhase]) -> FrozenPart:
    """What is frozen, and what is still, in every one of `phases`."""
    frozen = set.intersection(*(set(phase.frozen) for phase in phases))
    still = set.intersection(*(set(phase.still) for phase in phases))
    return FrozenPart(
        parameters=tuple(name for name, _ in model.named_parameters() if name in frozen),
        buffers=tuple(buffer_names(model, still)),
        left_out=tuple(dict.fromkeys(path for phase in phases for path in phase.unproved_buffers)),
    )


def buffer_names(model: nn.Module, paths: set[str]) -> list[str]:
    """The buffers that the modules at `paths` hold themselves."""
    held = (
        (path, module.named_buffers(recurse=False)) for path, module in model.named_modules() if path in paths
    )
    return [join(path, name) for path, buffers in held for name, _ in buffers]


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by name; a buffer that several modules hold by each of its names."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers(remove_duplicate=False))}


def moving_buffers(model: nn.Module, phase: PlanPhase) -> list[str]:
    """The buffers that a training step of `phase` may change: those of modules that are not still."""
    still = set(buffer_names(model, set(phase.still)))
    return [name for name, _ in model.named_buffers() if name not in still]


def freeze(model: nn.Module, phase: PlanPhase) -> None:
    """Gives gradients to what `phase` trains and to nothing else. DDP looks once: call it before wrapping."""
    _check_fits(model, phase)
    trainable = set(phase.trainable)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)
        parameter.grad = None


def set_training_modes(model: nn.Module, phase: PlanPhase) -> None:
    """Training mode, save for the still modules. Each is set alone: the plan names every one of them."""
    model.train()
    for path in phase.still:
        model.get_submodule(path).training = False


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _check_fits(model: nn.Module, phase: PlanPhase) -> None:
    actual = {name for name, _ in model.named_parameters()}
    planned = {*phase.trainable, *phase.frozen}
    if actual != planned:
        missing, surplus = sorted(planned - actual)[:10], sorted(actual - planned)[:10]
        raise TrainingFailed(
            f"the freeze plan is not for this model: it names {missing}, not there, and lacks {surplus}",
            code="plan_mismatch",
            hint="plan and model come from different versions of the model's package",
        )
