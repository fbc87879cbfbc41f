"""One pass of a still network over a data set, that leaves its activations as shards and an index."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from shared.domain.activations import (
    FOLDER,
    ActivationsWanted,
    ModuleActivations,
    SavedActivations,
    StoredFile,
)
from shared.domain.events import ShardLine
from shared.domain.job import StopReason
from worker.training.errors import TrainingFailed
from worker.training.extraction_index import write_index
from worker.training.extraction_pace import ExtractionPace
from worker.training.extraction_plan import Shard, Shares, plan_shards
from worker.training.extraction_taps import inspect
from worker.training.extraction_work import Source, Work
from worker.training.progress import Progress
from worker.training.ranks import Ranks
from worker.training.stop import STEPS_BETWEEN, Agreement, Boundary, stop_file_in
from worker.training.time_limit import TimeLimit
from worker.training.transforms import Normalize

# Enough to tell the batch's dimension from others, and cheap on the largest network.
INSPECTED_SAMPLES = 3


@dataclass(frozen=True)
class ExtractionPass:
    """A network in eval mode, what is wanted of it, and the ranks that share the work.

    `batch_size` is one rank's. `finished` are shards that need not be made again. Every rank makes one, and
    calls the same methods.
    """

    model: nn.Module
    wanted: ActivationsWanted
    source: Source
    batch_size: int
    normalize: Normalize
    out: Path
    ranks: Ranks
    progress: Progress
    finished: Sequence[StoredFile] = ()

    def preflight(self) -> dict[str, ModuleActivations]:
        """What will be saved of each module. Raises TrainingFailed where that cannot be, or is too much."""
        first = self.source.indices[:INSPECTED_SAMPLES].tolist()
        (loaded,) = self.source.batches.load([first])
        layout = inspect(self.model, self.normalize(loaded[0]), self.wanted)
        self._check_size(layout)
        return layout

    def run(
        self, layout: Mapping[str, ModuleActivations], network: str, digest: str, time_limit: TimeLimit
    ) -> SavedActivations | StopReason:
        """Saves everything, or stops where that is asked for. `network` and `digest` go into the index."""
        n_samples = len(self.source.indices)
        shards = plan_shards(n_samples, self.batch_size, bytes_per_sample(layout), self.wanted.output)
        finished = {file.name.rpartition("/")[2]: file for file in self.finished}
        shares = Shares.of(shards, finished, self.ranks.world_size, self.batch_size)
        (self.out / FOLDER).mkdir(exist_ok=True)
        work = Work(self.model, layout, self.source, self.normalize, self.out)
        work.take_on(shares.of_rank[self.ranks.rank], self.batch_size)
        stopped = self._extract(shares, work, time_limit)
        if stopped is not None:
            return stopped
        files = _gathered(shards, work.made, self.ranks)
        files = [finished.get(shard.name, file) for shard, file in zip(shards, files, strict=True)]
        return self._saved(layout, shards, files, network, digest)

    def _extract(self, shares: Shares, work: Work, time_limit: TimeLimit) -> StopReason | None:
        """Round after round, a batch a rank; between rounds the ranks agree on whether to go on."""
        boundary = Boundary(self.ranks, stop_file_in(self.out), time_limit)
        pace = ExtractionPace(self.progress, len(self.source.indices), shares.n_done[-1])
        untold = deque(shares.whole_after)
        stopped = self._heed(boundary.meet(), 0)
        for done in range(1, shares.rounds + 1):
            if stopped is not None:
                return stopped
            work.step()
            is_last = done == shares.rounds
            if is_last or done % STEPS_BETWEEN[self.ranks.device.type] == 0:
                agreed = boundary.meet()
                self._tell_of_shards(untold, done)
                pace.count(shares.n_done[done])
                stopped = None if is_last else self._heed(agreed, shares.n_done[done])
        return stopped

    def _heed(self, agreed: Agreement, n_done: int) -> StopReason | None:
        if agreed.time_is_up:
            raise TrainingFailed(
                f"the activations were not done after max_duration_s: {n_done:,} of "
                f"{len(self.source.indices):,} samples were",
                code="time_limit",
            )
        return agreed.stop

    def _tell_of_shards(self, untold: deque[tuple[int, Shard]], rounds: int) -> None:
        """Those that are whole: after they have met, every rank is done with this round."""
        while untold and untold[0][0] <= rounds:
            _, shard = untold.popleft()
            file = f"{FOLDER}/{shard.name}"
            self.progress.write(ShardLine(time=time.time(), file=file, n_samples=shard.n_samples))

    def _saved(
        self,
        layout: Mapping[str, ModuleActivations],
        shards: Sequence[Shard],
        files: Sequence[StoredFile],
        network: str,
        digest: str,
    ) -> SavedActivations:
        told_of_all = []
        if self.ranks.is_first:
            names = (self.source.names(shard) for shard in shards)
            told_of_all = write_index(
                self.out, self.wanted, layout, shards, files, names, network=network, digest=digest
            )
        every = [*files, *told_of_all]
        return SavedActivations(
            modules=dict(layout),
            n_samples=len(self.source.indices),
            n_bytes=sum(file.bytes for file in every),
            files=every,
        )

    def _check_size(self, layout: Mapping[str, ModuleActivations]) -> None:
        n_samples = len(self.source.indices)
        n_bytes = n_samples * bytes_per_sample(layout)
        if n_bytes > self.wanted.max_bytes:
            raise TrainingFailed(
                f"the activations of {n_samples:,} samples would take {n_bytes:,} bytes; "
                f"this server allows {self.wanted.max_bytes:,}",
                code="too_large",
                hint='name fewer modules, or ask for pool "mean" or dtype "float16"',
            )


def bytes_per_sample(layout: Mapping[str, ModuleActivations]) -> int:
    """What one sample takes in a shard, its index included."""
    return 8 + sum(saved.bytes_per_sample for saved in layout.values())


def _gathered(shards: Sequence[Shard], made: Mapping[int, StoredFile], ranks: Ranks) -> list[StoredFile]:
    """Every rank's files, on every rank: only numbers travel."""
    table = torch.zeros((len(shards), 33), dtype=torch.int64)
    for number, file in made.items():
        table[number] = torch.tensor([file.bytes, *bytes.fromhex(file.sha256)])
    rows: list[list[int]] = ranks.sum(table).tolist()
    return [_as_file(shard, size, digest) for shard, (size, *digest) in zip(shards, rows, strict=True)]


def _as_file(shard: Shard, size: int, digest: Sequence[int]) -> StoredFile:
    return StoredFile(name=f"{FOLDER}/{shard.name}", bytes=size, sha256=bytes(digest).hex())
