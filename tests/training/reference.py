"""Fine-tuning by a schedule on several ranks, written out by hand: what the engine has to agree with.

    torchrun --nproc-per-node=2 reference.py job.json OUT

It knows nothing of Thaw: torch, a network, pictures in class folders, lists of which sample is whose when.
After each epoch every rank writes the network's state to OUT/rank<n>-epoch<n>.pt.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from small_networks import NETWORKS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

Job = dict[str, Any]


def main(job: Job, out: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = NETWORKS[job["network"]]()
    model.load_state_dict(torch.load(job["initial"], weights_only=True))
    pictures, labels = read_pictures(Path(job["pictures"]))
    step, total = 0, sum(map(len, job["batches"]))
    optimizer = ranks = None
    for epoch, batches in enumerate(job["batches"]):
        for phase in job["phases"]:
            if phase["from_epoch"] == epoch:
                choose_what_trains(model, phase["trains"])
                optimizer = new_optimizer(model, phase["trains"], job, optimizer)
                ranks = DistributedDataParallel(model)
        for batch in batches:
            mine = batch[rank]
            for group in optimizer.param_groups:
                group["lr"] = job["learning_rate"] * 0.5 * (1 + math.cos(math.pi * (step / total)))
                group["lr"] *= group["scale"]
            cross_entropy(ranks(pictures[mine]), labels[mine]).backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        torch.save(model.state_dict(), out / f"rank{rank}-epoch{epoch}.pt")
    dist.barrier()
    dist.destroy_process_group()


def read_pictures(root: Path) -> tuple[Tensor, Tensor]:
    """All pictures, scaled to 0..1: [n, 3, height, width], and their classes."""
    files = sorted(root.rglob("*.png"))
    classes = sorted({file.parent.name for file in files})
    pixels = np.stack([np.array(Image.open(file).convert("RGB")) for file in files])
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() * (1 / 255)
    return scaled.contiguous(), torch.tensor([classes.index(file.parent.name) for file in files])


def choose_what_trains(model: nn.Module, trains: dict[str, float]) -> None:
    """Gradients for the parts in `trains` alone; what is wholly frozen computes as in use."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(scale_of(name, trains) is not None)
        parameter.grad = None
    set_modes(model, above=True)


def set_modes(module: nn.Module, above: bool) -> None:
    """Training where a parameter below trains; what has no parameters does as what it is in."""
    parameters = list(module.parameters())
    module.training = any(p.requires_grad for p in parameters) if parameters else above
    for child in module.children():
        set_modes(child, module.training)


def scale_of(name: str, trains: dict[str, float]) -> float | None:
    """What the part that holds the parameter `name` multiplies the learning rate with; None if frozen."""
    return next((scale for part, scale in trains.items() if name.startswith(f"{part}.")), None)


def new_optimizer(
    model: nn.Module, trains: dict[str, float], job: Job, old: torch.optim.Optimizer | None
) -> torch.optim.Optimizer:
    """One group for each trained tensor. What trained until now goes on with the moments that it has."""
    trained = [(scale_of(name, trains), p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [{"params": [parameter], "scale": scale} for scale, parameter in trained]
    if job["optimizer"] == "sgd":
        new = torch.optim.SGD(groups, lr=0.0, momentum=job["momentum"], weight_decay=job["weight_decay"])
    else:
        new = torch.optim.AdamW(groups, lr=0.0, weight_decay=job["weight_decay"])
    for _, parameter in trained:
        if old is not None and parameter in old.state:
            new.state[parameter] = old.state[parameter]
    return new


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    os._exit(0)  # Like the engine's ranks: torch's threads can crash a process that tidies up.
