"""Decoded pictures: found readable or not before training starts, and kept in memory where they fit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.training.data import Samples
from worker.training.errors import TrainingFailed
from worker.training.images import BadSample, Unreadable, resized
from worker.training.ranks import Ranks

# Each rank keeps a data set decoded, at the size that the model sees, up to this many bytes.
CACHE_BYTES = 512 * 2**20
NAMED_IN_ERRORS = 20
EXPLAINED = 100


@dataclass(frozen=True)
class Skipped:
    """A picture that cannot be read, and why; for those beyond the first hundred the reason is empty."""

    name: str
    reason: str


@dataclass(frozen=True)
class Pictures:
    """The readable pictures of one data set, at height x width."""

    samples: Samples
    height: int
    width: int
    readable: NDArray[np.int64]
    cache: Tensor | None

    def batch(self, indices: Sequence[int]) -> Tensor:
        """uint8 [batch, layers, height, width]"""
        if self.cache is not None:
            return self.cache[torch.as_tensor(indices)]
        return torch.stack([resized(self.in_own_size(i), self.height, self.width) for i in indices])

    def in_own_size(self, index: int) -> Tensor:
        """uint8 [layers, its height, its width]. Raises BadSample, naming it: it was readable before."""
        try:
            return self.samples.decode(index)
        except Unreadable as error:
            words = f"sample {index}, {self.samples.name(index)}, cannot be read any more: {error}"
            raise BadSample(words) from error


def open_pictures(
    samples: Samples, size: tuple[int, int], max_unreadable: float, ranks: Ranks, *, may_cache: bool
) -> tuple[Pictures, list[Skipped]]:
    """Reads every picture once, so that a bad one is known now and named, and keeps them where they fit.

    Pictures that are not kept are shared out over the ranks for this. Raises TrainingFailed where more than
    `max_unreadable` of them, as a share, cannot be read.
    """
    height, width = size
    n = len(samples)
    layers = samples.n_layers
    keeps = may_cache and n * layers * height * width <= CACHE_BYTES
    cache = torch.zeros((n, layers, height, width), dtype=torch.uint8) if keeps else None
    mine = range(n) if keeps else range(ranks.rank, n, ranks.world_size)
    is_bad = torch.zeros(n, dtype=torch.uint8)
    is_bad[_unreadable(samples, mine, size, cache, ranks)] = 1
    bad = ranks.max(is_bad).nonzero().flatten().tolist()
    skipped = [
        Skipped(samples.name(i), _reason(samples, i) if nth < EXPLAINED else "") for nth, i in enumerate(bad)
    ]
    if len(bad) > max_unreadable * n:
        raise _too_many(len(bad), n, max_unreadable, skipped)
    readable = np.setdiff1d(np.arange(n), np.array(bad, dtype=np.int64))
    return Pictures(samples, height, width, readable, cache), skipped


def _unreadable(
    samples: Samples, indices: Iterable[int], size: tuple[int, int], cache: Tensor | None, ranks: Ranks
) -> list[int]:
    """Those of `indices` that cannot be read; the others are put into `cache`."""

    def is_unreadable(index: int) -> bool:
        ranks.pulse.beat()
        try:
            picture = samples.decode(index)
        except Unreadable:
            return True
        if cache is not None:
            cache[index] = resized(picture, *size)
        return False

    indices = list(indices)
    with ThreadPoolExecutor(cores_per_rank(ranks)) as threads:
        found = threads.map(is_unreadable, indices)
        return [index for index, bad in zip(indices, found, strict=True) if bad]


def cores_per_rank(ranks: Ranks) -> int:
    """This node's cores, shared out over its ranks; at least one."""
    return max(1, len(os.sched_getaffinity(0)) // ranks.local_world_size)


def _reason(samples: Samples, index: int) -> str:
    try:
        samples.decode(index)
    except Unreadable as error:
        return str(error)
    return "it could not be read on another rank"


def _too_many(n_bad: int, n: int, allowed: float, skipped: Sequence[Skipped]) -> TrainingFailed:
    listed = "; ".join(f"{picture.name} ({picture.reason})" for picture in skipped[:NAMED_IN_ERRORS])
    more = f"; and {n_bad - NAMED_IN_ERRORS} more" if n_bad > NAMED_IN_ERRORS else ""
    return TrainingFailed(
        f"{n_bad} of {n} pictures cannot be read, and {allowed:.1%} may be skipped: {listed}{more}",
        code="bad_data",
        hint="take them out or replace them, or raise preprocessing.max_unreadable_fraction",
    )
