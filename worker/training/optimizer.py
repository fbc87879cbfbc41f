"""The optimizer of a phase: what it holds, and what the next one takes over from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from shared.domain.freeze import PlanPhase
from shared.domain.spec import ResolvedHyperparameters
from worker.training.freezing import trainable_parameters

Moments = dict[str, dict[str, Any]]


def make_optimizer(model: nn.Module, phase: PlanPhase, settings: ResolvedHyperparameters) -> Optimizer:
    """Holds the trainable parameters only, with their names, in one group for each learning-rate scale."""
    by_scale: dict[float, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in trainable_parameters(model).items():
        by_scale.setdefault(phase.lr_scale.get(name, 1.0), []).append((name, parameter))
    groups = [{"params": named, "lr_scale": scale} for scale, named in by_scale.items()]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return SGD(groups, lr=rate, momentum=settings.momentum, weight_decay=decay)
    return AdamW(groups, lr=rate, weight_decay=decay)


def moments(optimizer: Optimizer) -> Moments:
    """What the optimizer has gathered of each parameter, by name; nothing of one that got no gradient yet."""
    return {
        name: dict(optimizer.state[parameter])
        for name, parameter in _named(optimizer)
        if parameter in optimizer.state
    }


def put_back_moments(optimizer: Optimizer, saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Gives each parameter what was saved under its name, whatever its group; the others start anew."""
    state = optimizer.state_dict()
    names = [name for name, _ in _named(optimizer)]
    state["state"] = {place: dict(saved[name]) for place, name in enumerate(names) if name in saved}
    optimizer.load_state_dict(state)


def _named(optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    """In the order by which `state_dict` numbers them."""
    for group in optimizer.param_groups:
        yield from zip(group["param_names"], group["params"], strict=True)
