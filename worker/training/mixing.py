"""What a network answers of one sample must not depend on the samples beside it: in use, it gets others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worker.training.errors import TrainingFailed
from worker.training.snapshot import left_untouched
from worker.training.tasks import Task

# Of the largest value. In batches of one shape an answer comes out with the same bits on most devices.
TOLERANCE = 1e-4


def check_samples_apart(model: nn.Module, inputs: Tensor, task: Task) -> None:
    """Raises TrainingFailed where what `model`, in eval mode, answers to a sample depends on the others."""
    inputs = inputs if len(inputs) > 1 else inputs.repeat(2, 1, 1, 1)
    is_even = torch.arange(len(inputs), device=inputs.device) % 2 == 0
    others = 1 - inputs.roll(1, dims=0)
    alone = _answer(model, inputs, task)
    for stays in (is_even, ~is_even):
        beside = torch.where(stays.view(-1, 1, 1, 1), inputs, others)
        change = (_answer(model, beside, task) - alone).abs().flatten(1).amax(dim=1)
        _check(torch.where(stays, change, 0.0), float(alone.abs().max()))


def _answer(model: nn.Module, inputs: Tensor, task: Task) -> Tensor:
    """In full precision; what it draws, it draws again the next time."""
    with left_untouched(model, inputs.device), torch.no_grad():
        return task.answer(model(inputs))


def _check(change: Tensor, greatest: float) -> None:
    """`change` is the largest one of each sample's answer."""
    most, sample = change.max(dim=0)
    if most > TOLERANCE * greatest:
        raise TrainingFailed(
            f"in eval mode the model mixes the samples of a batch: with others beside it, the answer to "
            f"sample {int(sample)} of {len(change)} changed by {float(most):.3g}, "
            f"where answers go up to {greatest:.3g}",
            code="bad_model_output",
            hint="normalise each sample alone, or with running statistics (BatchNorm's track_running_stats)",
        )
