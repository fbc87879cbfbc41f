"""How good a model is: every validation sample exactly once over all ranks, without padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from shared.domain.events import Evaluation
from worker.training.datasets import ValidationData
from worker.training.errors import TrainingFailed
from worker.training.models import main_logits
from worker.training.precision import Precision
from worker.training.ranks import Ranks
from worker.training.sampling import evaluation_batches
from worker.training.transforms import Normalize

# Beyond this the matrix alone would outgrow everything else in a result.
MOST_CLASSES_IN_MATRIX = 1_000


@dataclass
class Counts:
    """What is counted; adding up over ranks gives the whole."""

    loss: Tensor
    per_class: Tensor
    correct: Tensor
    matrix: Tensor | None

    @classmethod
    def empty(cls, n_classes: int) -> Counts:
        has_matrix = n_classes <= MOST_CLASSES_IN_MATRIX
        return cls(
            loss=torch.zeros((), dtype=torch.float64),
            per_class=torch.zeros(n_classes, dtype=torch.int64),
            correct=torch.zeros(n_classes, dtype=torch.int64),
            matrix=torch.zeros((n_classes, n_classes), dtype=torch.int64) if has_matrix else None,
        )

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """`scores` may lie on any device, `labels` on the CPU."""
        n_classes = len(self.per_class)
        on_device = labels.to(scores.device, non_blocking=True)
        self.loss += cross_entropy(scores.float(), on_device, reduction="sum").double().cpu()
        predicted = scores.argmax(dim=1).cpu()
        self.per_class += torch.bincount(labels, minlength=n_classes)
        self.correct += torch.bincount(labels[predicted == labels], minlength=n_classes)
        if self.matrix is not None:
            cells = torch.bincount(labels * n_classes + predicted, minlength=n_classes**2)
            self.matrix += cells.view(n_classes, n_classes)

    def over_ranks(self, ranks: Ranks) -> Counts:
        for tensor in (self.loss, self.per_class, self.correct, self.matrix):
            if tensor is not None:
                ranks.sum(tensor)
        return self


def evaluate(
    model: nn.Module, data: ValidationData, class_names: Sequence[str], batch_size: int, normalize: Normalize,
    precision: Precision, ranks: Ranks,
) -> Evaluation:  # fmt: skip
    """Evaluates `model`, with rank 0's buffers, on every rank's share. It stays in eval mode.

    The loss is the plain mean cross entropy. Raises TrainingFailed where it is not finite.
    """
    share_buffers(model, ranks)
    model.eval()
    counts = Counts.empty(len(class_names))
    batches = evaluation_batches(data.indices, batch_size, ranks.rank, ranks.world_size)
    # Not inference_mode: a model may keep what it computes here, and train on with it.
    with torch.no_grad(), precision.autocast():
        for pixels, labels in data.batches.load(batches):
            scores = main_logits(model(normalize(pixels)))
            counts.add(_checked(scores, len(labels), len(class_names)), labels)
    return _as_evaluation(counts.over_ranks(ranks), class_names)


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


def _checked(scores: Tensor, n: int, n_classes: int) -> Tensor:
    if tuple(scores.shape) != (n, n_classes):
        raise TrainingFailed(
            f"in eval mode the model gives {list(scores.shape)}, not {[n, n_classes]}",
            code="bad_model_output",
        )
    return scores


def _as_evaluation(counts: Counts, class_names: Sequence[str]) -> Evaluation:
    n = int(counts.per_class.sum())
    loss = counts.loss.item() / n
    if not math.isfinite(loss):
        raise TrainingFailed(
            "the validation loss is not finite (NaN or infinite)",
            code="non_finite_loss",
            hint="a lower learning_rate, gradient_clip_norm, or precision fp32 may help",
        )
    of_class = zip(class_names, counts.correct.tolist(), counts.per_class.tolist(), strict=True)
    return Evaluation(
        loss=loss,
        accuracy=counts.correct.sum().item() / n,
        n_samples=n,
        per_class_accuracy={name: right / total if total else None for name, right, total in of_class},
        confusion_matrix=[] if counts.matrix is None else counts.matrix.tolist(),
    )
