"""The network of a run: built, given its weights, given its head."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from shared.domain.events import TrainerSpec
from worker.training.generators import seed_generators
from worker.training.models import build, load_weights, replace_head


def build_network(spec: TrainerSpec) -> nn.Module:
    """The network as it is before the first step, on the CPU. The same spec gives the same bits.

    The new head has a seed of its own, so that it does not depend on what the backbone drew.
    """
    size = (spec.preprocessing.height, spec.preprocessing.width)
    base, target = spec.base, spec.target
    seed_generators(spec.seed)
    num_classes, head = (base.num_classes, base.head[0]) if base.head else (None, None)
    model = build(base.name, base.source, num_classes, head, size)
    if spec.weights is not None:
        load_weights(model, Path(spec.weights.path))
    if spec.replace_head:
        seed_generators(spec.seed + 1)
        replace_head(model, target.head, target.num_classes)
    return model
