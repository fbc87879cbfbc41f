"""One optimizer step after another, for as long as the same parameters train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shared.domain.freeze import PlanPhase
from shared.domain.spec import ResolvedHyperparameters
from worker.training.freezing import freeze, moving_buffers, set_training_modes, trainable_parameters
from worker.training.optimizer import make_optimizer, moments, put_back_moments
from worker.training.precision import Precision
from worker.training.ranks import Ranks
from worker.training.schedule import learning_rate
from worker.training.snapshot import left_untouched
from worker.training.synchronised import synchronise
from worker.training.tasks import Task


class Loss(Protocol):
    """What steps make smaller."""

    @property
    def precision(self) -> Precision:
        """What the run computes in."""

    def called(self, model: nn.Module) -> nn.Module:
        """The module that `forward` calls for `model`: DDP wraps it, as it must see each forward."""

    def forward(self, called: nn.Module, inputs: Tensor, target: Tensor) -> tuple[Tensor, Any]:
        """(the loss with its graph, what was returned)"""

    def counted(self, output: Any, target: Tensor) -> Mapping[str, Tensor]:
        """The figures of a batch, each summed over its samples."""


@dataclass(frozen=True)
class TaskLoss:
    """The task's loss on what the model answers."""

    task: Task
    precision: Precision

    def called(self, model: nn.Module) -> nn.Module:
        return model

    def forward(self, called: nn.Module, inputs: Tensor, target: Tensor) -> tuple[Tensor, Any]:
        with self.precision.autocast():
            output = called(inputs)
            return self.task.loss(output, target), output

    def counted(self, output: Any, target: Tensor) -> Mapping[str, Tensor]:
        return self.task.counted(output, target)


class Stepper:
    """Trains `model` as one phase of the plan says. A new phase needs a new one: DDP looks only once."""

    def __init__(
        self,
        model: nn.Module,
        phase: PlanPhase,
        settings: ResolvedHyperparameters,
        loss: Loss,
        ranks: Ranks,
    ) -> None:
        self.model = model
        self.phase = phase
        self.loss = loss
        self._settings = settings
        self._ranks = ranks
        self.apply(phase)
        self.optimizer = make_optimizer(model, phase, settings)
        self.scaler = loss.precision.scaler()
        self._called = loss.called(model)

    def apply(self, phase: PlanPhase) -> None:
        """Puts the model into the state in which `phase` trains it."""
        freeze(self.model, phase)
        set_training_modes(self.model, phase)
        if self._settings.sync_batch_norm and not self._ranks.is_alone:
            synchronise(self.model, phase.still, self._ranks.device)

    def saved(self) -> dict[str, Any]:
        """What the steps so far have gathered, beside the model: plain values and tensors."""
        return {"moments": moments(self.optimizer), "scaler": self.scaler.state_dict()}

    def go_on_from(self, saved: Mapping[str, Any]) -> None:
        """Takes over what a stepper gathered: of this phase, or of the one before, for what still trains."""
        put_back_moments(self.optimizer, saved["moments"])
        # Empty where the GPU so far needed none; one that computes in fp16 starts with its own scale.
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])

    def wrap(self, inputs: Tensor, target: Tensor, *, find_unused_parameters: bool) -> None:
        """Joins the ranks' gradients from here on. Rank 0's buffers lead, where any of them moves at all.

        The batch is for a trial that leaves no trace.
        """
        if self._ranks.is_alone:
            return
        wrapped = DistributedDataParallel(
            self._called,
            device_ids=[self._ranks.device] if self._ranks.device.type == "cuda" else None,
            find_unused_parameters=find_unused_parameters,
            gradient_as_bucket_view=True,
        )
        # Set afterwards: as an argument it has two names, one of them new and one deprecated.
        wrapped.broadcast_buffers = bool(moving_buffers(self.model, self.phase))
        self._called = wrapped
        if not find_unused_parameters and self._ranks.world_size > 2:
            self._settle_buckets(inputs, target)

    def probe_loss(self, inputs: Tensor, target: Tensor) -> Callable[[nn.Module], Tensor]:
        return lambda model: self.loss.forward(self.loss.called(model), inputs, target)[0]

    def step(
        self, inputs: Tensor, target: Tensor, number: int, total: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Step `number` of `total`, counted from 0: (this rank's mean loss, its sums of the figures)."""
        rate = learning_rate(self._settings, number, total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        loss, output = self.loss.forward(self._called, inputs, target)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch types it not
        self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            counted = self.loss.counted(output, target)
        return loss.detach(), counted

    def back_to_training(self) -> None:
        set_training_modes(self.model, self.phase)

    def _settle_buckets(self, inputs: Tensor, target: Tensor) -> None:
        """Runs a backward that nothing learns from: after the first DDP puts gradients into other buckets.

        How three ranks or more add a gradient up depends on its place there, and the steps of a resumed run
        must add up as the same steps of a run that never stopped.
        """
        with left_untouched(self.model, self._ranks.device):
            loss, _ = self.loss.forward(self._called, inputs, target)
            loss.backward()  # type: ignore[no-untyped-call]  # torch types it not
        self.optimizer.zero_grad(set_to_none=True)

    def _clip(self) -> None:
        if self._settings.gradient_clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(
                trainable_parameters(self.model).values(), self._settings.gradient_clip_norm
            )
