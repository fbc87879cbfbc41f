"""Each step's loss on a real batch before anything else: is it there, and is it one finite number?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from shared.domain.freeze import FreezePlan, PlanPhase
from shared.domain.freeze_plan import PlanStep
from worker.training.errors import TrainingFailed, is_out_of_memory
from worker.training.own_steps.loss import StepLoss
from worker.training.own_steps.reading import problem_of_method
from worker.training.precision import Precision
from worker.training.run import Run
from worker.training.snapshot import left_untouched
from worker.training.stepping import put_into

CODE = "bad_training_step"
WANTED = "it must return the mean loss over the batch, a tensor of one number without dimensions"


def check_steps(run: Run, inputs: Tensor, target: Tensor) -> None:
    """Raises TrainingFailed where a step's method is not there, or gives no loss.

    It is called as in training, and as in evaluation where there is validation data. The model is left in the
    state of the last step.
    """
    model, precision = run.model, run.precision
    for phase, step in _once_each(run.spec.freeze_plan):
        problem = problem_of_method(model, step.loss)
        if problem:
            raise TrainingFailed(f"the training step {step.name!r} cannot run: {problem}", code=CODE)
        put_into(model, phase.in_step(step), run.spec.hyperparameters, run.ranks)
        _check_loss(model, step, inputs, target, precision, nullcontext())
        if run.data.validation is not None:
            model.eval()
            _check_loss(model, step, inputs, target, precision, torch.no_grad())


def _once_each(plan: FreezePlan) -> Iterator[tuple[PlanPhase, PlanStep]]:
    """Each step that runs at all, with the first phase in which it does."""
    seen: set[str] = set()
    for phase in plan.phases:
        for step in phase.steps:
            if not step.is_left_out and step.name not in seen:
                seen.add(step.name)
                yield phase, step


def _check_loss(
    model: nn.Module,
    step: PlanStep,
    inputs: Tensor,
    target: Tensor,
    precision: Precision,
    gradients: AbstractContextManager[object],
) -> None:
    called = StepLoss(step, precision).called(model)
    with left_untouched(model, inputs.device), gradients, precision.autocast():
        loss = _returned(called, step, inputs, target)
    problem = _problem(loss)
    if problem:
        mode = "training" if torch.is_grad_enabled() and model.training else "eval"
        raise TrainingFailed(
            f"in {mode} mode the loss of the training step {step.name!r} is {problem}; {WANTED}", code=CODE
        )


def _returned(called: nn.Module, step: PlanStep, inputs: Tensor, target: Tensor) -> object:
    try:
        return called(inputs, target)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise TrainingFailed(
            f"the loss of the training step {step.name!r} cannot be computed on a batch of shape "
            f"{list(inputs.shape)}: {type(error).__name__}: {error}",
            code=CODE,
            hint=f"{step.loss} gets images [batch, 3, height, width] and class numbers [batch], or an empty "
            "tensor [batch, 0] where the data set has none",
        ) from error


def _problem(loss: object) -> str | None:
    """What is wrong with a loss, in words; None where nothing is."""
    if not isinstance(loss, Tensor):
        return f"a {type(loss).__name__}"
    if loss.dim() or not loss.is_floating_point():
        return f"a tensor of {str(loss.dtype).removeprefix('torch.')} and shape {list(loss.shape)}"
    if not loss.isfinite():
        return f"not finite ({loss.item()})"
    return None
