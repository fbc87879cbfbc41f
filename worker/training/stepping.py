"""One optimizer step after another, for as long as the same parameters train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shared.domain.freeze import PlanPhase
from shared.domain.spec import ResolvedHyperparameters
from shared.domain.training_result import FindUnused, StepAccount
from worker.training.finite import check_scale
from worker.training.freezing import freeze, moving_buffers, set_training_modes, trainable_parameters
from worker.training.optimizer import make_optimizer, moments, put_back_moments
from worker.training.precision import Precision
from worker.training.probe import Asked, decide_find_unused
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
        *,
        shares_buffers: bool = True,
    ) -> None:
        """With `shares_buffers` rank 0's buffers lead in each step, where any of them moves at all."""
        self.model = model
        self.phase = phase
        self.loss = loss
        self._settings = settings
        self._ranks = ranks
        self.apply(phase)
        self.optimizer = make_optimizer(model, phase, settings)
        self.scaler = loss.precision.scaler()
        self._called = loss.called(model)
        self._shares_buffers = shares_buffers and bool(moving_buffers(model, phase))

    @property
    def accounts(self) -> Sequence[StepAccount]:
        """Of the network's own training steps: here there are none."""
        return ()

    def apply(self, phase: PlanPhase) -> None:
        """Puts the model into the state in which `phase` trains it."""
        put_into(self.model, phase, self._settings, self._ranks)

    def saved(self) -> dict[str, Any]:
        """What the steps so far have gathered, beside the model: plain values and tensors."""
        return {
            "from_epoch": self.phase.from_epoch,
            "moments": moments(self.optimizer),
            "scaler": self.scaler.state_dict(),
        }

    def go_on_from(self, saved: Mapping[str, Any]) -> None:
        """Takes over what a stepper gathered: of this phase, or of the one before, for what still trains."""
        put_back_moments(self.optimizer, saved["moments"])
        # Empty where the GPU so far needed none; one that computes in fp16 starts with its own scale.
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])

    def probe(self, phase: PlanPhase, inputs: Tensor, target: Tensor, asked: Asked, when: str) -> FindUnused:
        """What takes part in the loss where the model trains as `phase` says; it is left in that state."""
        self.apply(phase)
        return probe(self.model, self.loss, inputs, target, asked, self._ranks, when)

    def wrap(self, inputs: Tensor, target: Tensor, found: FindUnused) -> None:
        """Joins the ranks' gradients from here on. The batch is for a trial that leaves no trace."""
        if self._ranks.is_alone:
            return
        wrapped = DistributedDataParallel(
            self._called,
            device_ids=[self._ranks.device] if self._ranks.device.type == "cuda" else None,
            find_unused_parameters=found.value,
            gradient_as_bucket_view=True,
        )
        # Set afterwards: as an argument it has two names, one of them new and one deprecated.
        wrapped.broadcast_buffers = self._shares_buffers
        self._called = wrapped
        if not found.value and self._ranks.world_size > 2:
            self._settle_buckets(inputs, target)

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

    def check_gradients(self, number: int) -> None:
        """After `number` steps. Raises TrainingFailed where fp16 has left nothing of the gradients."""
        if self.scaler.is_enabled():
            check_scale(self.scaler.get_scale(), number)

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


def put_into(model: nn.Module, phase: PlanPhase, settings: ResolvedHyperparameters, ranks: Ranks) -> None:
    """Puts the model into the state in which `phase` trains it."""
    freeze(model, phase)
    set_training_modes(model, phase)
    if settings.sync_batch_norm and not ranks.is_alone:
        synchronise(model, phase.still, ranks.device)


def probe(
    model: nn.Module, loss: Loss, inputs: Tensor, target: Tensor, asked: Asked, ranks: Ranks, when: str
) -> FindUnused:
    """What takes part in `loss`, where the model is in the state in which it trains; errors say `when`."""
    return decide_find_unused(
        model, lambda probed: loss.forward(loss.called(probed), inputs, target)[0], asked, ranks, when
    )
