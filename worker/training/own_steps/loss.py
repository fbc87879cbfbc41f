"""The loss of one of a network's own steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from shared.domain.freeze_plan import PlanStep
from worker.training.precision import Precision


class LossOf(nn.Module):
    """`network`, whose forward is one of its loss methods: DDP takes note of nothing but forward."""

    def __init__(self, network: nn.Module, method: str) -> None:
        super().__init__()
        self.network = network
        self._method = method

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = getattr(self.network, self._method)(images, targets)
        return loss


@dataclass(frozen=True)
class StepLoss:
    """What `step` makes smaller."""

    step: PlanStep
    precision: Precision

    def called(self, model: nn.Module) -> nn.Module:
        return LossOf(model, self.step.loss)

    def forward(self, called: nn.Module, inputs: Tensor, target: Tensor) -> tuple[Tensor, Any]:
        """(the loss with its graph, the loss summed over the batch)"""
        with self.precision.autocast():
            loss = called(inputs, target).float()
        return loss, loss.detach() * len(inputs)

    def counted(self, output: Any, target: Tensor) -> Mapping[str, Tensor]:
        return {figure(self.step): output}


def figure(step: PlanStep) -> str:
    """The name under which the step's loss is told."""
    return f"{step.name}_loss"
