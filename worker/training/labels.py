"""What a data set says of its pictures beside their pixels, by the pictures' places in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.training.errors import TrainingFailed

Indices = NDArray[np.int64]


class Labels(Protocol):
    """The labels of a data set."""

    @property
    def strata(self) -> NDArray[np.int64]:
        """The group of each picture: a share of each group is set aside for validation."""

    def batch(self, indices: Sequence[int]) -> Tensor:
        """The labels of these pictures, the first axis theirs."""

    def counts(self, indices: Indices) -> NDArray[np.int64] | None:
        """How many of these pictures each class has; None where labels tell no classes."""

    def check(self, counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
        """Raises TrainingFailed where nothing can be learnt from classes of such `counts`."""


@dataclass(frozen=True)
class ClassNumbers:
    """One class a picture. A batch is int64 [batch]."""

    numbers: NDArray[np.int64]
    n_classes: int

    @property
    def strata(self) -> NDArray[np.int64]:
        return self.numbers

    def batch(self, indices: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.numbers[indices])

    def counts(self, indices: Indices) -> NDArray[np.int64]:
        return np.bincount(self.numbers[indices], minlength=self.n_classes)

    def check(self, counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
        present = counts.nonzero()[0]
        if len(present) < 2:
            raise TrainingFailed(
                f"all training pictures are of one class, {class_names[present[0]]!r}; it takes two at least",
                code="bad_data",
            )


@dataclass(frozen=True)
class NoLabels:
    """Pictures of which nothing more is told. A batch is empty: [batch, 0]."""

    n_samples: int

    @property
    def strata(self) -> NDArray[np.int64]:
        return np.zeros(self.n_samples, dtype=np.int64)

    def batch(self, indices: Sequence[int]) -> Tensor:
        return torch.empty((len(indices), 0))

    def counts(self, indices: Indices) -> None:
        return None

    def check(self, counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
        """Nothing to say: there are no counts."""


@dataclass(frozen=True)
class LabelSets:
    """Any number of classes a picture. A batch is uint8 [batch, classes]: 1 where it has the label."""

    sets: Sequence[NDArray[np.int64]]
    n_classes: int

    @property
    def strata(self) -> NDArray[np.int64]:
        return np.zeros(len(self.sets), dtype=np.int64)

    def batch(self, indices: Sequence[int]) -> Tensor:
        rows = torch.zeros((len(indices), self.n_classes), dtype=torch.uint8)
        for row, index in zip(rows, indices, strict=True):
            row[torch.from_numpy(self.sets[index])] = 1
        return rows

    def counts(self, indices: Indices) -> NDArray[np.int64]:
        found = np.concatenate([self.sets[index] for index in indices])
        return np.bincount(found, minlength=self.n_classes)

    def check(self, counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
        if not counts.any():
            raise TrainingFailed("no training picture has a label", code="bad_data")
