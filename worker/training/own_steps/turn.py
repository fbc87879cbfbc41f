"""One of a network's own training steps at work, and the account of what it left alone."""

from __future__ import annotations

from shared.domain.freeze import PlanPhase
from shared.domain.freeze_plan import PlanStep
from shared.domain.training_result import StepAccount, StepDigests
from worker.training.freezing import frozen_part
from worker.training.own_steps.guard import Guard
from worker.training.own_steps.loss import StepLoss
from worker.training.proofs import combined, digests
from worker.training.run import Run
from worker.training.stepping import Stepper

CHECKED = (
    "after every step, each tensor bit for bit against a copy from before it; "
    "sha256 over all of them at the first step and at each epoch's last"
)


class Turn:
    """What a step of `phase` needs each time that it comes round."""

    def __init__(self, run: Run, phase: PlanPhase, step: PlanStep) -> None:
        model, alone = run.model, phase.in_step(step)
        trains, still = set(alone.trainable), set(alone.still)
        self.step = step
        self.frozen = frozen_part(model, [alone])
        self.stepper = Stepper(
            model,
            alone,
            run.spec.hyperparameters,
            StepLoss(step, run.precision),
            run.ranks,
            shares_buffers=False,
        )
        self.account = StepAccount(
            name=step.name,
            n_trainable=alone.n_trainable,
            n_frozen=alone.n_frozen,
            done=0,
            unchanged=True,
            n_checks=0,
            n_parameters=len(self.frozen.parameters),
            n_buffers=len(self.frozen.buffers),
            left_out=list(self.frozen.left_out),
            checked=CHECKED,
        )
        self._model = model
        self._gradients = [(parameter, name in trains) for name, parameter in model.named_parameters()]
        self._modes = [(module, path not in still) for path, module in model.named_modules()]

    def enter(self) -> None:
        """Gradients and modes as the step needs them: what `Stepper.apply` does, without looking anew."""
        for parameter, trains in self._gradients:
            parameter.requires_grad_(trains)
            parameter.grad = None
        for module, is_training in self._modes:
            module.training = is_training

    def prove(self, guard: Guard, number: int, *, ends_epoch: bool) -> None:
        """After the step, the `number`th of the run. Raises TrainingFailed where anything frozen moved."""
        account = self.account
        guard.end(self.frozen, self.step.name, number)
        account.done += 1
        account.n_checks += 1
        if account.first is None or ends_epoch:
            found = StepDigests(
                step=number,
                before=guard.digest_before(self.frozen),
                after=combined(digests(self._model, self.frozen.names)),
            )
            account.first = account.first or found
            account.last = found
