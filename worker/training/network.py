"""The network of a run: built, given its weights, given its head."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from shared import catalog
from shared.domain.events import TrainerSpec, WeightsFile
from shared.domain.resolved import Architecture
from worker.training.generators import seed_generators
from worker.training.models import build, describe_module, load_weights, replace_head


def block_paths(model: nn.Module, spec: TrainerSpec) -> tuple[str, ...]:
    """The network's blocks: for torchvision's, in forward order."""
    target = spec.target
    if target.source == "torchvision":
        return catalog.get(target.name).tree.blocks
    return describe_module(model, target.head).blocks


def build_network(spec: TrainerSpec) -> nn.Module:
    """The network as it is before the first step, on the CPU. The same spec gives the same bits.

    The new head has a seed of its own, so that it does not depend on what the backbone drew.
    """
    size = (spec.preprocessing.height, spec.preprocessing.width)
    model = build_base(spec.base, spec.weights, size, spec.seed)
    if spec.replace_head:
        seed_generators(spec.seed + 1)
        replace_head(model, spec.target.head, spec.target.num_classes)
    return model


def build_base(
    network: Architecture, weights: WeightsFile | None, size: tuple[int, int], seed: int
) -> nn.Module:
    """The network with its weights, or random ones from `seed`. `size` is (height, width) of its pictures."""
    seed_generators(seed)
    head = network.head[0] if network.head else None
    model = build(network.name, network.source, network.num_classes if head else None, head, size)
    if weights is not None:
        load_weights(model, Path(weights.path))
    return model
