"""One rank's share of an extraction: batch after batch through the network, into shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from shared.domain.activations import ModuleActivations, StoredFile
from worker.training.extraction_plan import Shard
from worker.training.extraction_shards import Label, Names, OpenShard
from worker.training.extraction_taps import Collector, Taps
from worker.training.labels import ClassNumbers, Indices, Labels, LabelSets
from worker.training.loading import Batch, Batches
from worker.training.pictures import Pictures
from worker.training.transforms import Normalize


@dataclass(frozen=True)
class Source:
    """The samples that are run through the network: those at `indices`, in this order."""

    pictures: Pictures
    batches: Batches
    indices: Indices
    class_names: Sequence[str]

    def names(self, shard: Shard) -> Names:
        """What the samples of a shard are called."""
        mine = self.indices[shard.start : shard.stop].tolist()
        samples = self.pictures.samples
        labels = [_label(samples.labels, index, self.class_names) for index in mine]
        return Names(mine, [samples.name(index) for index in mine], labels)


class Work:
    """The shards that this rank makes, and those that it has made, by number."""

    def __init__(
        self,
        model: nn.Module,
        layout: Mapping[str, ModuleActivations],
        source: Source,
        normalize: Normalize,
        out: Path,
    ) -> None:
        self.made: dict[int, StoredFile] = {}
        self._model = model
        self._layout = layout
        self._source = source
        self._normalize = normalize
        self._out = out
        self._collector = Collector(layout)
        self._shards: Iterator[Shard] = iter(())
        self._loaded: Iterator[Batch] = iter(())
        self._open: OpenShard | None = None

    def take_on(self, shards: Sequence[Shard], batch_size: int) -> None:
        """Begin with these shards."""
        self._shards = iter(shards)
        batches = [batch for shard in shards for batch in shard.batches(batch_size)]
        self._loaded = self._source.batches.load(self._source.indices[list(b)].tolist() for b in batches)

    def step(self) -> None:
        """The next batch; the shard that it fills is written. Without one left, nothing happens."""
        batch = next(self._loaded, None)
        if batch is None:
            return
        if self._open is None:
            self._open = OpenShard(next(self._shards), self._layout)
        self._open.add(self._activations(batch), len(batch[0]))
        if self._open.is_full:
            shard, filled, self._open = self._open.shard, self._open, None
            self.made[shard.number] = filled.write(self._out, self._source.names(shard))

    def _activations(self, batch: Batch) -> dict[str, torch.Tensor]:
        pixels = batch[0]
        with Taps(self._model, list(self._layout), self._collector.take), torch.no_grad():
            self._model(self._normalize(pixels))
        return self._collector.rows(len(pixels))


def _label(labels: Labels, index: int, class_names: Sequence[str]) -> Label:
    """The name of a sample's class, or of its classes; None where its label is none of either."""
    match labels:
        case ClassNumbers():
            return class_names[int(labels.numbers[index])]
        case LabelSets():
            return [class_names[number] for number in labels.sets[index]]
        case _:
            return None
