"""The parts of a plan that need no server, each by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from shared.catalog import CatalogModel
from shared.catalog.flow import FOLDER, SUFFIX, read_flow
from shared.domain.freeze import FreezeSpec, parse_freeze, resolve
from shared.domain.plan import Subject, planned
from shared.domain.resolved import Architecture, NoWeights, ResolvedJob, ResolvedPreprocessing
from shared.domain.spec import Hyperparameters, resolve_hyperparameters

Made = TypeVar("Made")
REPEATS = 10


def parts_of(known: CatalogModel, freeze: Any) -> dict[str, float]:
    """Milliseconds of each part, the best of some runs."""
    spec = parse_freeze(freeze)
    reading, flow = best(lambda: read_flow(FOLDER / f"{known.name}{SUFFIX}"))
    resolving, plan = best(lambda: resolve(spec, known.tree))
    subject = Subject(job(known, spec), plan, known.tree, flow, None, 1, "cuda", validates=False)
    figuring, made = best(lambda: planned(subject))
    writing, text = best(lambda: plan.model_dump_json() + made.figures.model_dump_json())
    times = {"read the flow": reading, "resolve": resolving, "figures": figuring, "write": writing}
    return {**times, "bytes": len(text)}


def best(act: Callable[[], Made]) -> tuple[float, Made]:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        made = act()
        times.append((time.perf_counter() - began) * 1000)
    return min(times), made


def job(known: CatalogModel, spec: FreezeSpec) -> ResolvedJob:
    """A job on the network as it is, with every default."""
    made = Architecture(
        source="torchvision",
        name=known.name,
        num_classes=known.tree.num_classes or 0,
        head=list(known.tree.head),
    )
    height, width = known.image_size
    return ResolvedJob(
        task="classification",
        base=made,
        target=made,
        replace_head=False,
        weights=NoWeights(),
        class_names=[],
        freeze=spec,
        hyperparameters=resolve_hyperparameters(Hyperparameters(), 1),
        preprocessing=ResolvedPreprocessing(
            height=height,
            width=width,
            mean=[0.0, 0.0, 0.0],
            std=[1.0, 1.0, 1.0],
            augment="none",
            max_unreadable_fraction=0.0,
        ),
        validation_fraction=None,
        max_duration_s=None,
        seed=0,
    )
