"""Batches in the order they are asked for: from memory, or decoded ahead by processes of their own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from worker.training.pictures import Pictures, cores_per_rank
from worker.training.process import die_with_parent
from worker.training.ranks import Ranks
from worker.training.transforms import Augmentation

MOST_WORKERS = {"cpu": 2, "cuda": 8}

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int | None]


@dataclass(frozen=True)
class KeyedPictures(Dataset[Batch]):
    """Whole batches by keys: (sample, epoch), or (sample, None) for the picture as it is."""

    pictures: Pictures
    augmentation: Augmentation

    def __getitems__(self, keys: list[Key]) -> Batch:
        indices = [index for index, _ in keys]
        epoch = keys[0][1]
        if epoch is None:
            layers = self.pictures.batch(indices)
        else:
            layers = self.augmentation.batch(self.pictures, indices, epoch)
        if self.pictures.samples.masks is not None:
            return layers[:, :3], layers[:, 3]
        return layers, self.pictures.samples.labels.batch(indices)


class Batches:
    """Loads batches of (uint8 pixels, labels or masks)."""

    def __init__(self, pictures: Pictures, augmentation: Augmentation, ranks: Ranks) -> None:
        self._data = KeyedPictures(pictures, augmentation)
        self._pulse = ranks.pulse
        self._lease = ranks.lease
        in_memory = pictures.cache is not None
        self.n_workers = 0 if in_memory else min(MOST_WORKERS[ranks.device.type], cores_per_rank(ranks))
        self._pins = ranks.device.type == "cuda"
        self._asked: list[list[Key]] = []
        self._loader: DataLoader[Batch] | None = None

    @property
    def pictures(self) -> Pictures:
        """What the batches are of."""
        return self._data.pictures

    def load(self, batches: Iterable[list[int]], epoch: int | None = None) -> Iterator[Batch]:
        """Each batch in turn; augmented as for `epoch`, or as the pictures are. One such pass at a time."""
        self._asked[:] = [[(index, epoch) for index in batch] for batch in batches]
        return map(self._handed_out, self._loaded())

    def _loaded(self) -> Iterator[Batch]:
        if self.n_workers == 0:
            return (self._data.__getitems__(keys) for keys in list(self._asked))
        if self._loader is None:
            self._loader = self._open_loader(os.getpid())
        return iter(self._loader)

    def _handed_out(self, batch: Batch) -> Batch:
        """The batch: whoever asks for it is done with the one before."""
        self._pulse.beat()
        self._lease.wait()
        return batch

    def _open_loader(self, parent: int) -> DataLoader[Batch]:
        """Its processes stay from one epoch to the next, and read `_asked` anew at the start of each."""
        return DataLoader(
            self._data,
            batch_sampler=self._asked,
            num_workers=self.n_workers,
            # Children of this very process, to end with it; from Python 3.14 on that is not the default.
            multiprocessing_context="fork",
            collate_fn=_as_it_is,
            pin_memory=self._pins,
            persistent_workers=True,
            # Its own: by default starting a pass draws from the generator that dropout uses.
            generator=torch.Generator(),
            worker_init_fn=lambda _: die_with_parent(parent),
        )


def _as_it_is(batch: Any) -> Any:
    """Batches come whole from the data set."""
    return batch
