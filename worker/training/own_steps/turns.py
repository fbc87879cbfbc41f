"""A phase of a network that brings its own training steps: on every batch each of them, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from shared.domain.freeze import PlanPhase
from shared.domain.freeze_plan import PlanStep
from shared.domain.training_result import FindUnused, StepAccount
from worker.training.errors import TrainingFailed
from worker.training.evaluation import share_buffers
from worker.training.freezing import set_training_modes
from worker.training.own_steps.guard import Guard
from worker.training.own_steps.loss import StepLoss
from worker.training.own_steps.turn import Turn
from worker.training.probe import Asked
from worker.training.run import Run
from worker.training.stepping import probe, put_into


class StepsInTurn:
    """Trains `model` as one phase of the plan says, each step with an optimizer and a DDP of its own.

    While a step runs the others' parts are frozen and their modules still: batch normalisation there uses its
    running statistics.
    """

    def __init__(self, run: Run, phase: PlanPhase) -> None:
        if not running(phase):
            raise TrainingFailed(
                f"the freeze plan names no training step that would run from epoch {phase.from_epoch} on",
                code="plan_mismatch",
                hint="plan and model come from different versions of the model's package",
            )
        self.phase = phase
        self._run = run
        self._guard = Guard(run.model)
        self._turns = [Turn(run, phase, step) for step in running(phase)]
        self.apply(phase)

    @property
    def accounts(self) -> list[StepAccount]:
        """What came of each step so far."""
        return [turn.account for turn in self._turns]

    def apply(self, phase: PlanPhase) -> None:
        """Puts the model into the state of the phase as a whole: what any of its steps trains may learn."""
        put_into(self._run.model, phase, self._run.spec.hyperparameters, self._run.ranks)

    def saved(self) -> dict[str, Any]:
        """What the steps so far have gathered, beside the model: plain values and tensors."""
        return {
            "from_epoch": self.phase.from_epoch,
            "steps": {
                turn.step.name: {**turn.stepper.saved(), "account": turn.account.model_dump()}
                for turn in self._turns
            },
        }

    def go_on_from(self, saved: Mapping[str, Any]) -> None:
        """Takes over what was gathered: of this phase, or of the one before, for the steps that both have."""
        for turn in self._turns:
            of_step = saved["steps"].get(turn.step.name)
            if of_step is not None:
                turn.stepper.go_on_from(of_step)
                if saved["from_epoch"] == self.phase.from_epoch:
                    turn.account = StepAccount.model_validate(of_step["account"])

    def probe(self, phase: PlanPhase, inputs: Tensor, target: Tensor, asked: Asked, when: str) -> FindUnused:
        """What takes part in the losses of the steps of `phase`."""
        run = self._run
        found: dict[str, FindUnused] = {}
        for step in running(phase):
            self.apply(phase.in_step(step))
            loss, in_step = StepLoss(step, run.precision), f"{when}training step {step.name!r}: "
            found[step.name] = probe(run.model, loss, inputs, target, asked, run.ranks, in_step)
        self.apply(phase)
        return FindUnused(
            value=any(of_step.value for of_step in found.values()),
            reason="; ".join(f"{name}: {of_step.reason}" for name, of_step in found.items()),
            unused=list(dict.fromkeys(name for of_step in found.values() for name in of_step.unused)),
            steps=found,
        )

    def wrap(self, inputs: Tensor, target: Tensor, found: FindUnused) -> None:
        """Joins the ranks' gradients from here on, step by step."""
        for turn in self._turns:
            turn.enter()
            turn.stepper.wrap(inputs, target, found.steps[turn.step.name])
        self.apply(self.phase)

    def step(
        self, inputs: Tensor, target: Tensor, number: int, total: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Round `number` of `total`, counted from 0: (the sum of the steps' losses, the sums of each).

        Raises TrainingFailed where a step moved what is frozen in it.
        """
        losses: list[Tensor] = []
        figures: dict[str, Tensor] = {}
        run = self._run
        ends_epoch = (number + 1) % run.data.order.steps_per_epoch == 0
        for turn in self._turns:
            # Before the copies are made: a rank's own statistics give way to rank 0's now, not in the step.
            share_buffers(run.model, run.ranks)
            turn.enter()
            self._guard.begin(turn.frozen)
            loss, counted = turn.stepper.step(inputs, target, number, total)
            turn.prove(self._guard, number + 1, ends_epoch=ends_epoch)
            losses.append(loss)
            figures |= counted
        return torch.stack(losses).sum(), figures

    def check_gradients(self, number: int) -> None:
        """After `number` rounds. Raises TrainingFailed where fp16 has left nothing of a step's gradients."""
        for turn in self._turns:
            turn.stepper.check_gradients(number)

    def back_to_training(self) -> None:
        """The modes of the phase as a whole; each step sets its own."""
        set_training_modes(self._run.model, self.phase)


def running(phase: PlanPhase) -> Sequence[PlanStep]:
    """The steps of `phase` that train anything."""
    return [step for step in phase.steps if not step.is_left_out]
