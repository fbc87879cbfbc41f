"""The processes that train together, and their few collectives. Only tensors travel, never pickles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from shared.domain.device import Device
from worker.training.errors import TrainingFailed
from worker.training.lease_watch import LeaseWatch
from worker.training.pulse import Pulse

# Longer than any pause that a held or saving rank may make. A run that hangs is ended by its launcher, which
# can say where each rank stands.
COLLECTIVE_TIMEOUT = timedelta(days=1)


@dataclass(frozen=True)
class Ranks:
    """This process's place among `world_size`. CPU tensors travel over gloo, CUDA tensors over NCCL."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device
    pulse: Pulse = field(default_factory=Pulse, compare=False)
    lease: LeaseWatch = field(default_factory=LeaseWatch, compare=False)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_first_of_node(self) -> bool:
        """Whether it speaks for its node: nodes share no folder."""
        return self.local_rank == 0

    @property
    def is_alone(self) -> bool:
        return self.world_size == 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, on every rank. `tensor` itself is changed."""
        if not self.is_alone:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """The greatest over all ranks, on every rank. `tensor` itself is changed."""
        if not self.is_alone:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def from_first(self, tensor: Tensor) -> Tensor:
        """Rank 0's values, on every rank. `tensor` itself is changed."""
        if not self.is_alone:
            dist.broadcast(tensor, src=0)
        return tensor

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Each rank's tensor, in the order of ranks, on every rank."""
        if self.is_alone:
            return [tensor]
        gathered = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(gathered, tensor)
        return gathered

    def gather_rows(self, rows: Tensor) -> list[Tensor]:
        """As `gather`, where ranks may have different numbers of rows; other sizes are the same."""
        counts = torch.stack(self.gather(torch.tensor(len(rows)))).tolist()
        padding = rows.new_zeros((max(counts) - len(rows), *rows.shape[1:]))
        every = self.gather(torch.cat([rows, padding]))
        return [of_rank[:count] for of_rank, count in zip(every, counts, strict=True)]


@contextmanager
def joined_ranks(
    device: Device,
    world_size: int,
    pulse: Pulse | None = None,
    lease: LeaseWatch | None = None,
) -> Iterator[Ranks]:
    """Joins the ranks that torch elastic started; without its variables this process is the only one.

    A rank that fails ends without a farewell: torch elastic then ends its peers.
    """
    ranks = _from_environment(device, world_size)
    ranks = replace(ranks, pulse=pulse or Pulse(), lease=lease or LeaseWatch())
    if device == "cuda":
        torch.cuda.set_device(ranks.local_rank)
    if ranks.is_alone:
        yield ranks
        return
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=COLLECTIVE_TIMEOUT)
    yield ranks
    # Not after an error: NCCL's end is collective, and would wait for peers that wait for this rank.
    dist.destroy_process_group()


def _from_environment(device: Device, world_size: int) -> Ranks:
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != world_size:
        raise TrainingFailed(
            f"the spec wants {world_size} ranks, and {started} were started",
            code="wrong_world_size",
            hint=f"start it through torch.distributed.run --nproc-per-node={world_size}",
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingFailed("the spec wants a CUDA device, and torch sees none", code="no_device")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return Ranks(
        rank=int(os.environ.get("RANK", "0")),
        world_size=world_size,
        local_rank=local,
        local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        device=torch.device(device, local) if device == "cuda" else torch.device("cpu"),
    )
