"""The picture itself: mean squared error, as an autoencoder is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from shared.domain.errors import Invalid
from shared.domain.training_result import Evaluation
from worker.training.ranks import Ranks


@dataclass(frozen=True)
class Reconstruction:
    """The target is the input: float [batch, 3, height, width], normalised.

    The loss is in normalised units. The figures are in units of pixels from 0 to 1: what the network answers
    times `std`, the channels' deviations by which the input was divided; nothing is cut off at 0 or 1.
    """

    std: Sequence[float]

    answer_in_words = "a picture for each picture, normalised as its input"
    output_in_words = (
        "[batch, 3, height, width]: the pictures as the network makes them anew, normalised as its input; "
        "times std plus mean they are pixels from 0 to 1"
    )
    figures = ("mse",)

    def target(self, inputs: Tensor, loaded: Tensor) -> Tensor:
        return inputs

    def answer_shape(self, inputs: Tensor) -> tuple[int, ...]:
        return tuple(inputs.shape)

    def answer(self, output: Any) -> Tensor:
        if isinstance(output, Tensor):
            return output
        raise Invalid(
            f"the model returned a {type(output).__name__}; it must return one tensor, "
            "[batch, 3, height, width]",
            param="model",
            code="bad_model_output",
        )

    def loss(self, output: Any, target: Tensor) -> Tensor:
        return mse_loss(self.answer(output).float(), target)

    def counted(self, output: Any, target: Tensor) -> Mapping[str, Tensor]:
        errors = squared_errors(self.answer(output), target, self.std)
        return {"mse": errors.mean(dim=(1, 2, 3)).sum()}

    def new_counts(self) -> SquaredErrors:
        return SquaredErrors(self.std)


@dataclass
class SquaredErrors:
    """Sums over all values of all pictures."""

    std: Sequence[float]
    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    errors: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    n_values: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    n_samples: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))

    def add(self, answer: Tensor, target: Tensor) -> None:
        self.loss += mse_loss(answer.float(), target, reduction="sum").double().cpu()
        self.errors += squared_errors(answer, target, self.std).sum().double().cpu()
        self.n_values += target.numel()
        self.n_samples += len(target)

    def over_ranks(self, ranks: Ranks) -> SquaredErrors:
        for tensor in (self.loss, self.errors, self.n_values, self.n_samples):
            ranks.sum(tensor)
        return self

    def evaluation(self) -> Evaluation:
        """PSNR is 10 log10(1 / MSE) over all values of all pictures; without any error there is none."""
        n = self.n_values.item()
        mse = self.errors.item() / n
        metrics = {"mse": mse, **({"psnr_db": -10 * math.log10(mse)} if 0 < mse < math.inf else {})}
        return Evaluation(
            loss=self.loss.item() / n,
            n_samples=int(self.n_samples.item()),
            metrics=metrics,
            main_metric="psnr_db" if "psnr_db" in metrics else "mse",
        )


def squared_errors(answer: Tensor, target: Tensor, std: Sequence[float]) -> Tensor:
    """Of pixels from 0 to 1, for normalised pictures."""
    scale = torch.tensor(std, dtype=torch.float32, device=target.device).view(1, 3, 1, 1)
    return ((answer.float() - target) * scale).square()
