"""Which samples share a shard, and which rank computes it.

Shards and batches depend on the samples, the size of their activations and one rank's batch alone. So the
same files come about whatever the number of ranks, bit for bit where the computing is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, zip_longest

from shared.domain.activations import Output, shard_name

# A shard is held in memory until it is written, and lost with its rank until then.
SHARD_BYTES = 256 * 10**6
# So many at least, where there are samples for it, so that ranks get nearly equal shares.
SHARDS_AT_LEAST = 16


@dataclass(frozen=True)
class Shard:
    """Samples from place `start` up to `stop` among those that can be read."""

    number: int
    start: int
    stop: int
    output: Output

    @property
    def n_samples(self) -> int:
        return self.stop - self.start

    @property
    def name(self) -> str:
        return shard_name(self.output, self.number)

    def batches(self, batch_size: int) -> Iterator[range]:
        """Places of the samples of each batch; no batch reaches into another shard."""
        for start in range(self.start, self.stop, batch_size):
            yield range(start, min(start + batch_size, self.stop))


def plan_shards(n_samples: int, batch_size: int, bytes_per_sample: int, output: Output) -> list[Shard]:
    """All shards in their order. `batch_size` is one rank's; a shard is whole batches where it can be."""
    most = max(1, SHARD_BYTES // max(1, bytes_per_sample))
    size = min(most, max(batch_size, -(-n_samples // SHARDS_AT_LEAST)))
    size -= size % batch_size if size > batch_size else 0
    starts = range(0, n_samples, size)
    return [Shard(number, start, min(start + size, n_samples), output) for number, start in enumerate(starts)]


@dataclass(frozen=True)
class Shares:
    """The shards that are still to be made, shared out over the ranks in turn.

    All ranks work in rounds, a batch each, until the one with the most batches is done.
    """

    of_rank: tuple[tuple[Shard, ...], ...]
    batch_size: int

    @classmethod
    def of(
        cls, shards: Sequence[Shard], finished: Collection[str], world_size: int, batch_size: int
    ) -> Shares:
        """`finished` are the names of shards that need not be made."""
        open_shards = [shard for shard in shards if shard.name not in finished]
        return cls(tuple(tuple(open_shards[rank::world_size]) for rank in range(world_size)), batch_size)

    @cached_property
    def rounds(self) -> int:
        """How many batches the rank with the most of them has."""
        return len(self.n_done) - 1

    @cached_property
    def n_done(self) -> list[int]:
        """How many samples all ranks together have done after 0, 1, 2 ... rounds."""
        sizes = [
            [len(batch) for shard in own for batch in shard.batches(self.batch_size)] for own in self.of_rank
        ]
        return list(accumulate((sum(of_round) for of_round in zip_longest(*sizes, fillvalue=0)), initial=0))

    @cached_property
    def whole_after(self) -> list[tuple[int, Shard]]:
        """Each shard with the number of rounds after which it is whole, the first ones first."""
        found = []
        for own in self.of_rank:
            counts = accumulate(-(-shard.n_samples // self.batch_size) for shard in own)
            found += list(zip(counts, own, strict=True))
        return sorted(found, key=lambda pair: (pair[0], pair[1].number))
