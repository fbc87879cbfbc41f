"""A class for each pixel: cross entropy over pixels, and how far what is said and what is there overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from shared.domain.errors import Invalid
from shared.domain.training_result import Evaluation
from worker.training.errors import TrainingFailed
from worker.training.masks import IGNORED
from worker.training.ranks import Ranks

# What torchvision's own training gives the auxiliary classifier.
AUXILIARY_WEIGHT = 0.5


@dataclass(frozen=True)
class Segmentation:
    """The target is the number of each pixel's class, or IGNORED: int64 [batch, height, width].

    Networks return the scores alone, or as torchvision's do a dict: the scores as `out`, and as `aux` those
    of an auxiliary classifier, which counts in the loss of training only.
    """

    class_names: Sequence[str]
    label_smoothing: float

    answer_in_words = "class scores for each pixel of each picture"
    output_in_words = (
        "[batch, classes, height, width], alone or as `out` in a dict: scores, of which the highest is the "
        "class of the pixel"
    )
    figures = ("pixel_accuracy",)

    def target(self, inputs: Tensor, loaded: Tensor) -> Tensor:
        return loaded.to(inputs.device, non_blocking=True).long()

    def answer_shape(self, inputs: Tensor) -> tuple[int, ...]:
        return (len(inputs), len(self.class_names), *inputs.shape[2:])

    def answer(self, output: Any) -> Tensor:
        scores = output.get("out") if isinstance(output, Mapping) else output
        if isinstance(scores, Tensor):
            return scores
        raise Invalid(
            f"the model returned a {type(output).__name__}; it must return one tensor, "
            "[batch, classes, height, width], or a dict with that as 'out'",
            param="model",
            code="bad_model_output",
        )

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """The mean over the pixels that count, plus half of the auxiliary classifier's."""
        loss = self._mean_loss(self.answer(output), target)
        if isinstance(output, Mapping) and "aux" in output:
            loss = loss + AUXILIARY_WEIGHT * self._mean_loss(output["aux"], target)
        return loss

    def counted(self, output: Any, target: Tensor) -> Mapping[str, Tensor]:
        """The share of the batch's pixels that are told right, for each of its pictures."""
        right = (self.answer(output).argmax(dim=1) == target).sum()
        return {"pixel_accuracy": right / _n_counting(target) * len(target)}

    def new_counts(self) -> PixelCounts:
        n = len(self.class_names)
        return PixelCounts(self.class_names, torch.zeros((n, n), dtype=torch.int64))

    def _mean_loss(self, scores: Tensor, target: Tensor) -> Tensor:
        # Not the mean of torch's own: without a pixel that counts, it is not a number.
        total = cross_entropy(
            scores.float(),
            target,
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return total / _n_counting(target)


@dataclass
class PixelCounts:
    """Pixels by their class, the rows, and by the class that is said, the columns."""

    class_names: Sequence[str]
    matrix: Tensor
    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    n_samples: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))

    def add(self, answer: Tensor, target: Tensor) -> None:
        n_classes = len(self.class_names)
        self.loss += (
            cross_entropy(answer.float(), target, ignore_index=IGNORED, reduction="sum").double().cpu()
        )
        counts = target != IGNORED
        cells = target[counts] * n_classes + answer.argmax(dim=1)[counts]
        self.matrix += torch.bincount(cells, minlength=n_classes**2).view(n_classes, n_classes).cpu()
        self.n_samples += len(target)

    def over_ranks(self, ranks: Ranks) -> PixelCounts:
        for tensor in (self.matrix, self.loss, self.n_samples):
            ranks.sum(tensor)
        return self

    def evaluation(self) -> Evaluation:
        """IoU is right / (said or there), of classes that are said or there; the mean is over these."""
        n_pixels = int(self.matrix.sum())
        if n_pixels == 0:
            raise TrainingFailed(
                f"no pixel of the validation masks counts: all are {IGNORED}", code="bad_data"
            )
        right = self.matrix.diagonal().double()
        either = self.matrix.sum(dim=0) + self.matrix.sum(dim=1) - self.matrix.diagonal()
        iou = right / either
        of_class = zip(self.class_names, iou.tolist(), either.tolist(), strict=True)
        return Evaluation(
            loss=self.loss.item() / n_pixels,
            n_samples=int(self.n_samples),
            metrics={
                "mean_iou": iou[either > 0].mean().item(),
                "pixel_accuracy": right.sum().item() / n_pixels,
            },
            main_metric="mean_iou",
            per_class_iou={name: value if n else None for name, value, n in of_class},
            confusion_matrix=self.matrix.tolist(),
        )


def _n_counting(target: Tensor) -> Tensor:
    return (target != IGNORED).sum().clamp(min=1)
