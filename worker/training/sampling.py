"""Which sample is seen when, and by which rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shared.domain.datasets import n_set_aside
from shared.domain.epoch_steps import last_batch, steps_per_epoch
from worker.training.errors import TrainingFailed
from worker.training.labels import Indices


def split(indices: Indices, strata: NDArray[np.int64], fraction: float, seed: int) -> tuple[Indices, Indices]:
    """(training, validation): a share of each stratum is set aside, the same for the same seed.

    Each stratum keeps at least one sample for training; validation gets at least one sample in all.
    """
    generator = np.random.default_rng(seed)
    aside: list[Indices] = []
    for number in np.unique(strata[indices]):
        of_stratum = generator.permutation(indices[strata[indices] == number])
        aside.append(of_stratum[: n_set_aside(len(of_stratum), fraction)])
    validation = np.sort(np.concatenate(aside))
    if len(validation) == 0:
        largest = max((indices[strata[indices] == n] for n in np.unique(strata[indices])), key=len)
        validation = largest[-1:]
    return np.setdiff1d(indices, validation), validation


@dataclass(frozen=True)
class TrainingOrder:
    """The order of training: a fresh shuffle for each epoch that depends on (seed, epoch) alone.

    The global batch is a slice of that order, and each rank takes an equal part of the slice. What is left at
    the end is one smaller batch, cut so that all ranks get equally many; where that is fewer than two each
    (too few for batch normalisation), it is left out, and the next epoch's shuffle leaves out others.
    """

    indices: Indices
    batch_size: int
    world_size: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.indices) < self.world_size:
            raise TrainingFailed(
                f"{len(self.indices)} training samples cannot be shared out over {self.world_size} ranks",
                code="bad_data",
            )

    @property
    def last_batch(self) -> int:
        """Size of the smaller batch at the end of an epoch, over all ranks; 0 if there is none."""
        return last_batch(len(self.indices), self.batch_size, self.world_size)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.indices), self.batch_size, self.world_size)

    @property
    def samples_per_epoch(self) -> int:
        return len(self.indices) // self.batch_size * self.batch_size + self.last_batch

    def batches(self, epoch: int, rank: int, first_step: int = 0) -> Iterator[list[int]]:
        """The samples of `rank` at each step of `epoch`, from `first_step` on."""
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        order = self.indices[torch.randperm(len(self.indices), generator=generator).numpy()]
        for step in range(first_step, self.steps_per_epoch):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            share = min(len(batch), self.batch_size) // self.world_size
            yield batch[rank * share : (rank + 1) * share].tolist()


def evaluation_batches(indices: Indices, batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """The samples that `rank` evaluates: every sample is some rank's, and no sample is two ranks'."""
    mine = indices[rank::world_size]
    return [mine[i : i + batch_size].tolist() for i in range(0, len(mine), batch_size)]


def mixed_seed(*parts: int) -> int:
    """One seed from several numbers; near numbers give unrelated seeds."""
    state: Sequence[int] = np.random.SeedSequence(parts).generate_state(1, np.uint64).tolist()
    return state[0] >> 1
