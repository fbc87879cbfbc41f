"""Reads the training steps that a network offers, and holds them against the network itself."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from torch import nn

from shared.domain.errors import Invalid
from shared.domain.module_tree import ModuleTree
from shared.domain.near_names import nearest
from shared.domain.training_steps import ATTRIBUTE, TrainingStep, check_steps, read_steps


def own_steps(model: nn.Module, tree: ModuleTree) -> tuple[TrainingStep, ...]:
    """The steps in the network's `training_steps`. Raises Invalid for what is not there, or cannot be one."""
    offered = getattr(model, ATTRIBUTE, None)
    if offered is None:
        raise Invalid(f"its task is custom, so it has to offer {ATTRIBUTE}", param=ATTRIBUTE)
    steps = read_steps(offered)
    check_steps(steps, tree)
    for i, step in enumerate(steps):
        problem = problem_of_method(model, step.loss)
        if problem:
            raise Invalid(problem, param=f"{ATTRIBUTE}[{i}].loss")
    return steps


def problem_of_method(model: nn.Module, name: str) -> str | None:
    """Why the method `name` of `model` cannot give a loss, in words; None where it may."""
    method = getattr(model, name, None)
    if not callable(method):
        near = ", ".join(nearest(name, _own_methods(model))) or "none"
        return f"the model has no method {name!r}; the nearest names are {near}"
    try:
        inspect.signature(method).bind("images", "targets")
    except TypeError as error:
        return f"{name!r} must take (images, targets): {error}"
    return None


def has_forward(model: nn.Module) -> bool:
    """Whether the network can be called itself. One that is trained by its own steps need not be."""
    return type(model).forward is not nn.Module.forward


def _own_methods(model: nn.Module) -> Sequence[str]:
    """Those that the network has beyond what every network has."""
    found = inspect.getmembers(type(model), callable)
    return [name for name, _ in found if not hasattr(nn.Module, name)]
