"""A forward of a real batch before anything else: does this network answer with [batch, num_classes]?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shared.domain.errors import Invalid
from worker.training.errors import TrainingFailed, is_out_of_memory
from worker.training.models import main_logits
from worker.training.precision import Precision
from worker.training.snapshot import left_untouched

CODE = "bad_model_output"


def check_output(model: nn.Module, inputs: Tensor, num_classes: int, precision: Precision) -> None:
    """Raises TrainingFailed, naming both shapes, where the output is not one row of class scores a sample."""
    with left_untouched(model, inputs.device), torch.no_grad(), precision.autocast():
        scores = _forward(model, inputs)
    expected = (len(inputs), num_classes)
    if tuple(scores.shape) != expected:
        raise TrainingFailed(
            f"in {'training' if model.training else 'eval'} mode the model turned a batch of shape "
            f"{list(inputs.shape)} into {list(scores.shape)}; "
            f"it must give {list(expected)}, one row of class scores for each picture",
            code=CODE,
            hint=_hint(inputs),
        )


def _forward(model: nn.Module, inputs: Tensor) -> Tensor:
    try:
        return main_logits(model(inputs))
    except Invalid as error:
        raise TrainingFailed(error.message, code=CODE) from error
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
