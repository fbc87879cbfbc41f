"""A pair of networks that train against one another on several ranks, written out by hand.

    torchrun --nproc-per-node=2 reference_pair.py job.json OUT

It knows nothing of Thaw, and joins the ranks without DistributedDataParallel: it averages each gradient.
At the end every rank writes the network's state to OUT/rank<n>.pt.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from reference import read_pictures, set_modes
from step_networks import STEP_NETWORKS
from torch import Tensor, nn


def main(job: dict[str, Any], out: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = STEP_NETWORKS[job["network"]]()
    model.load_state_dict(torch.load(job["initial"], weights_only=True))
    pictures, labels = read_pictures(Path(job["pictures"]))
    optimizers = [
        torch.optim.AdamW(trained(model, step).values(), lr=0.0, weight_decay=job["weight_decay"])
        for step in model.training_steps
    ]
    torch.manual_seed(job["seeds"][rank])
    total = len(job["batches"])
    for number, batch in enumerate(job["batches"]):
        rate = job["learning_rate"] * 0.5 * (1 + math.cos(math.pi * (number / total)))
        mine = batch[rank]
        for step, optimizer in zip(model.training_steps, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            learn(model, step, pictures[mine], labels[mine])
            optimizer.step()
            optimizer.zero_grad()
    lead(model)
    torch.save(model.state_dict(), out / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def learn(model: nn.Module, step: dict[str, Any], pictures: Tensor, labels: Tensor) -> None:
    """Rank 0's statistics everywhere; the step's part in training, all else as in use; mean gradients."""
    lead(model)
    parts = trained(model, step)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in parts)
    set_modes(model, above=True)
    getattr(model, step["loss"])(pictures, labels).backward()
    for parameter in parts.values():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad.div_(dist.get_world_size()))


def lead(model: nn.Module) -> None:
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)


def trained(model: nn.Module, step: dict[str, Any]) -> dict[str, nn.Parameter]:
    parts = [step["train"]] if isinstance(step["train"], str) else step["train"]
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if any(name.startswith(f"{part}.") for part in parts)
    }


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    os._exit(0)  # Like the engine's ranks: torch's threads can crash a process that tidies up.
