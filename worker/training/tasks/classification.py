"""One class a picture: cross entropy, accuracy, the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from shared.domain.training_result import Evaluation
from worker.training.ranks import Ranks
from worker.training.tasks.outputs import main_logits, training_loss

# Beyond this the matrix alone would outgrow everything else in a result.
MOST_CLASSES_IN_MATRIX = 1_000


@dataclass(frozen=True)
class Classification:
    """The target is the number of the picture's class: int64 [batch]."""

    class_names: Sequence[str]
    label_smoothing: float

    answer_in_words = "one row of class scores for each picture"
    output_in_words = "[batch, classes]: scores, which softmax turns into probabilities that add up to 1"
    figures = ("accuracy",)

    def target(self, inputs: Tensor, loaded: Tensor) -> Tensor:
        return loaded.to(inputs.device, non_blocking=True)

    def answer_shape(self, inputs: Tensor) -> tuple[int, ...]:
        return (len(inputs), len(self.class_names))

    def answer(self, output: Any) -> Tensor:
        return main_logits(output)

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Cross entropy with label smoothing; auxiliary classifiers count with their own weights."""
        of_scores = partial(cross_entropy, target=target, label_smoothing=self.label_smoothing)
        return training_loss(output, lambda scores: of_scores(scores.float()))

    def counted(self, output: Any, target: Tensor) -> Mapping[str, Tensor]:
        return {"accuracy": (main_logits(output).argmax(dim=1) == target).sum()}

    def new_counts(self) -> ClassCounts:
        return ClassCounts.empty(self.class_names)


@dataclass
class ClassCounts:
    """Samples and right answers of each class, and the matrix of both, rows the true class."""

    class_names: Sequence[str]
    loss: Tensor
    per_class: Tensor
    correct: Tensor
    matrix: Tensor | None

    @classmethod
    def empty(cls, class_names: Sequence[str]) -> ClassCounts:
        n = len(class_names)
        return cls(
            class_names=class_names,
            loss=torch.zeros((), dtype=torch.float64),
            per_class=torch.zeros(n, dtype=torch.int64),
            correct=torch.zeros(n, dtype=torch.int64),
            matrix=torch.zeros((n, n), dtype=torch.int64) if n <= MOST_CLASSES_IN_MATRIX else None,
        )

    def add(self, answer: Tensor, target: Tensor) -> None:
        n_classes = len(self.class_names)
        self.loss += cross_entropy(answer.float(), target, reduction="sum").double().cpu()
        predicted, labels = answer.argmax(dim=1).cpu(), target.cpu()
        self.per_class += torch.bincount(labels, minlength=n_classes)
        self.correct += torch.bincount(labels[predicted == labels], minlength=n_classes)
        if self.matrix is not None:
            cells = torch.bincount(labels * n_classes + predicted, minlength=n_classes**2)
            self.matrix += cells.view(n_classes, n_classes)

    def over_ranks(self, ranks: Ranks) -> ClassCounts:
        for tensor in (self.loss, self.per_class, self.correct, self.matrix):
            if tensor is not None:
                ranks.sum(tensor)
        return self

    def evaluation(self) -> Evaluation:
        n = int(self.per_class.sum())
        accuracy = self.correct.sum().item() / n
        of_class = zip(self.class_names, self.correct.tolist(), self.per_class.tolist(), strict=True)
        return Evaluation(
            loss=self.loss.item() / n,
            n_samples=n,
            main_metric="accuracy",
            metrics={"accuracy": accuracy},
            accuracy=accuracy,
            per_class_accuracy={name: right / total if total else None for name, right, total in of_class},
            confusion_matrix=[] if self.matrix is None else self.matrix.tolist(),
        )
