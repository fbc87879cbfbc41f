"""How many optimizer steps an epoch takes."""

from __future__ import annotations


def steps_per_epoch(n_samples: int, batch_size: int, world_size: int) -> int:
    """Whole batches, and the smaller one at the end where there is one. `batch_size` is over all ranks."""
    return n_samples // batch_size + (last_batch(n_samples, batch_size, world_size) > 0)


def last_batch(n_samples: int, batch_size: int, world_size: int) -> int:
    """Size of the smaller batch at the end of an epoch, over all ranks; 0 if there is none.

    All ranks get equally many. Fewer than two each are too few for batch normalisation and are left out,
    unless there is no other batch.
    """
    per_rank = n_samples % batch_size // world_size
    is_only_one = n_samples < batch_size
    return per_rank * world_size if per_rank >= 2 or is_only_one else 0
