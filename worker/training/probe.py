"""Finds out, on a real batch, which trainable parameters take no part in the loss: DDP has to be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shared.domain.training_result import FindUnused
from worker.training.errors import TrainingFailed
from worker.training.freezing import trainable_parameters
from worker.training.ranks import Ranks
from worker.training.snapshot import left_untouched

Asked = Literal["auto"] | bool

NAMED = 12


def decide_find_unused(
    model: nn.Module,
    loss_of: Callable[[nn.Module], Tensor],
    asked: Asked,
    ranks: Ranks,
    when: str = "",
) -> FindUnused:
    """DDP's find_unused_parameters for `model`, from one forward and backward; a person may force either.

    `loss_of` runs the model on a real batch; errors begin with `when`. Raises TrainingFailed where False is
    forced and would fail, and where no trainable parameter at all takes part.
    """
    unused = _unused_on_any_rank(model, loss_of, ranks)
    if len(unused) == len(trainable_parameters(model)):
        raise TrainingFailed(
            f"{when}no trainable parameter takes part in the loss: {_listed(unused)}",
            code="nothing_learns",
            hint="train a part of the model that its output depends on",
        )
    if asked is False and unused:
        raise TrainingFailed(
            f"{when}find_unused_parameters is false, and {len(unused)} trainable parameters take no part in "
            f"the loss: {_listed(unused)}; the ranks would fail at their second step",
            code="unused_parameters",
            hint='freeze them, or leave find_unused_parameters at "auto"',
        )
    return FindUnused(
        value=bool(unused) if asked == "auto" else asked, reason=_reason(asked, unused), unused=unused
    )


def _unused_on_any_rank(model: nn.Module, loss_of: Callable[[nn.Module], Tensor], ranks: Ranks) -> list[str]:
    parameters = trainable_parameters(model)
    gradients = _gradients(model, loss_of, list(parameters.values()), ranks.device)
    is_unused = torch.tensor([gradient is None for gradient in gradients], dtype=torch.uint8)
    return [name for name, flag in zip(parameters, ranks.max(is_unused).tolist(), strict=True) if flag]


def _gradients(
    model: nn.Module,
    loss_of: Callable[[nn.Module], Tensor],
    parameters: list[nn.Parameter],
    device: torch.device,
) -> tuple[Any, ...]:
    """Each parameter's gradient, None where it took no part. `.grad` stays as it was."""
    with left_untouched(model, device):
        loss = loss_of(model)
        if not loss.requires_grad:
            return (None,) * len(parameters)
        return torch.autograd.grad(loss, parameters, allow_unused=True)


def _reason(asked: Asked, unused: list[str]) -> str:
    if unused:
        found = f"{len(unused)} trainable parameters take no part in the loss: {_listed(unused)}"
    else:
        found = "every trainable parameter takes part in the loss"
    return found if asked == "auto" else f"forced to {str(asked).lower()}; {found}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
