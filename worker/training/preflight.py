"""A forward of a real batch before anything else: does this network answer in the form of its task?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shared.domain.errors import Invalid
from worker.training.errors import TrainingFailed, is_out_of_memory
from worker.training.precision import Precision
from worker.training.snapshot import left_untouched
from worker.training.tasks import Task

CODE = "bad_model_output"


def check_output(model: nn.Module, inputs: Tensor, task: Task, precision: Precision) -> None:
    """Raises TrainingFailed, naming both shapes, where the answer has not the form that `task` needs."""
    with left_untouched(model, inputs.device), torch.no_grad(), precision.autocast():
        answer = _answer(task, try_forward(model, inputs))
    expected = task.answer_shape(inputs)
    if tuple(answer.shape) != expected:
        raise TrainingFailed(
            f"in {'training' if model.training else 'eval'} mode the model turned a batch of shape "
            f"{list(inputs.shape)} into {list(answer.shape)}; "
            f"it must give {list(expected)}, {task.answer_in_words}",
            code=CODE,
            hint=_hint(inputs),
        )


def _answer(task: Task, output: Any) -> Tensor:
    try:
        return task.answer(output)
    except Invalid as error:
        raise TrainingFailed(error.message, code=CODE) from error


def try_forward(model: nn.Module, inputs: Tensor) -> Any:
    """What the model returns. Raises TrainingFailed, with the model's own words, where it raises."""
    try:
        return model(inputs)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise TrainingFailed(
            f"the model cannot take a batch of shape {list(inputs.shape)}: {type(error).__name__}: {error}",
            code=CODE,
            hint=_hint(inputs),
        ) from error


def _hint(inputs: Tensor) -> str:
    height, width = inputs.shape[-2:]
    return f"is {height}x{width} the size that this model is made for? preprocessing.image_size sets it"
