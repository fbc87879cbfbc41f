"""How good a model is: every validation sample exactly once over all ranks, without padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shared.domain.training_result import Evaluation
from worker.training.datasets import ValidationData
from worker.training.errors import TrainingFailed
from worker.training.precision import Precision
from worker.training.ranks import Ranks
from worker.training.sampling import evaluation_batches
from worker.training.tasks import Task
from worker.training.transforms import Normalize


def evaluate(
    model: nn.Module, data: ValidationData, task: Task, batch_size: int, normalize: Normalize,
    precision: Precision, ranks: Ranks,
) -> Evaluation:  # fmt: skip
    """Evaluates `model`, with rank 0's buffers, on every rank's share. It stays in eval mode."""
    share_buffers(model, ranks)
    model.eval()
    counts = task.new_counts()
    batches = evaluation_batches(data.indices, batch_size, ranks.rank, ranks.world_size)
    # Not inference_mode: a model may keep what it computes here, and train on with it.
    with torch.no_grad(), precision.autocast():
        for pixels, loaded in data.batches.load(batches):
            inputs = normalize(pixels)
            answer = _checked(task.answer(model(inputs)), task.answer_shape(inputs))
            counts.add(answer, task.target(inputs, loaded))
    return counts.over_ranks(ranks).evaluation()


def share_buffers(model: nn.Module, ranks: Ranks) -> None:
    """Rank 0's buffers on every rank: batch statistics differ by rank, and rank 0's are saved."""
    if ranks.is_alone:
        return
    of_type: dict[torch.dtype, list[Tensor]] = {}
    for buffer in model.buffers():
        of_type.setdefault(buffer.dtype, []).append(buffer)
    with torch.no_grad():
        for buffers in of_type.values():
            whole = ranks.from_first(torch.cat([buffer.reshape(-1) for buffer in buffers]))
            parts = torch.split(whole, [buffer.numel() for buffer in buffers])
            for buffer, part in zip(buffers, parts, strict=True):
                buffer.copy_(part.view_as(buffer))


def _checked(answer: Tensor, expected: tuple[int, ...]) -> Tensor:
    if tuple(answer.shape) != expected:
        raise TrainingFailed(
            f"in eval mode the model gives {list(answer.shape)}, not {list(expected)}",
            code="bad_model_output",
        )
    return answer
