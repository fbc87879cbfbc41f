"""Any number of classes a picture: a yes or no for each class, judged by F1 and average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from shared.domain.training_result import Evaluation
from worker.training.ranks import Ranks
from worker.training.tasks.average_precision import average_precision
from worker.training.tasks.outputs import main_logits, training_loss


@dataclass(frozen=True)
class Multilabel:
    """A picture is said to have a class from a probability of 0.5 on, a score of 0.

    The target is 1 for each class that the picture has, else 0: float [batch, classes].
    """

    class_names: Sequence[str]
    label_smoothing: float

    answer_in_words = "one row of class scores for each picture"
    output_in_words = (
        "[batch, classes]: scores, each of which a sigmoid turns into the probability of its class; "
        "from 0.5 on the picture has the label"
    )
    figures = ("exact_match",)

    def target(self, inputs: Tensor, loaded: Tensor) -> Tensor:
        return loaded.to(inputs.device, non_blocking=True).float()

    def answer_shape(self, inputs: Tensor) -> tuple[int, ...]:
        return (len(inputs), len(self.class_names))

    def answer(self, output: Any) -> Tensor:
        return main_logits(output)

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Binary cross entropy. Label smoothing draws yes and no towards one half, by so much of the way."""
        smooth = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        of_scores = partial(binary_cross_entropy_with_logits, target=smooth)
        return training_loss(output, lambda scores: of_scores(scores.float()))

    def counted(self, output: Any, target: Tensor) -> Mapping[str, Tensor]:
        """Pictures all of whose classes are told right."""
        return {"exact_match": ((main_logits(output) >= 0) == (target > 0)).all(dim=1).sum()}

    def new_counts(self) -> LabelCounts:
        return LabelCounts(self.class_names)


@dataclass
class LabelCounts:
    """Every answer and target: average precision needs the order of all answers, from whichever rank."""

    class_names: Sequence[str]
    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    scores: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)

    def add(self, answer: Tensor, target: Tensor) -> None:
        scores = answer.float()
        self.loss += binary_cross_entropy_with_logits(scores, target, reduction="sum").double().cpu()
        self.scores.append(scores.cpu())
        self.targets.append(target.to("cpu", torch.uint8))

    def over_ranks(self, ranks: Ranks) -> LabelCounts:
        ranks.sum(self.loss)
        width = len(self.class_names)
        self.scores = ranks.gather_rows(torch.cat([torch.zeros((0, width)), *self.scores]))
        self.targets = ranks.gather_rows(
            torch.cat([torch.zeros((0, width), dtype=torch.uint8), *self.targets])
        )
        return self

    def evaluation(self) -> Evaluation:
        scores, has = torch.cat(self.scores), torch.cat(self.targets) > 0
        f1, micro = _f1(scores >= 0, has)
        precision = average_precision(scores, has)
        exact = ((scores >= 0) == has).all(dim=1).double().mean().item()
        with_positives = has.any(dim=0)
        metrics = {"f1_micro": micro, "exact_match": exact}
        if with_positives.any():
            metrics |= {
                "mean_average_precision": precision[with_positives].mean().item(),
                "f1_macro": f1[with_positives].mean().item(),
            }
        return Evaluation(
            loss=self.loss.item() / has.numel(),
            n_samples=len(has),
            metrics=metrics,
            main_metric="mean_average_precision" if with_positives.any() else "exact_match",
            per_class_f1=self._by_name(f1, with_positives),
            per_class_average_precision=self._by_name(precision, with_positives),
        )

    def _by_name(self, values: Tensor, is_known: Tensor) -> dict[str, float | None]:
        of_class = zip(self.class_names, values.tolist(), is_known.tolist(), strict=True)
        return {name: value if known else None for name, value, known in of_class}


def _f1(said: Tensor, has: Tensor) -> tuple[Tensor, float]:
    """F1 of each class, and of all answers as one: 2 right / (2 right + wrong). Where both are 0 it is 1."""
    right = (said & has).sum(dim=0).double()
    wrong = (said ^ has).sum(dim=0).double()
    return _share(2 * right, wrong), _share(2 * right.sum(), wrong.sum()).item()


def _share(right: Tensor, wrong: Tensor) -> Tensor:
    return torch.where(right + wrong > 0, right / (right + wrong), torch.ones_like(right))
