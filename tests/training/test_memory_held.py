"""The memory that a plan reckons with, against the tensors that are alive in real training steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from live_tensors import LiveTensors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from shared import catalog
from shared.domain.freeze import FreezePlan, parse_freeze, resolve
from shared.domain.module_tree import ModuleTree
from shared.domain.plan import Subject, planned
from shared.domain.plan_figures import PhaseMemory
from shared.domain.resolved import Architecture, NoWeights, ResolvedJob, ResolvedPreprocessing
from shared.domain.spec import Hyperparameters, resolve_hyperparameters
from worker.training import models
from worker.training.freezing import freeze, set_training_modes
from worker.training.optimizer import make_optimizer
from worker.training.recomputation import recompute

Case = tuple[str, Any, int, int, dict[str, Any]]
"""A model, what is frozen, the picture's side, the batch, and hyperparameters."""

AGAIN = {"gradient_checkpointing": True}
CASES: list[Case] = [
    ("resnet18", "none", 64, 8, {}),
    ("resnet18", "backbone", 64, 32, {}),
    ("resnet18", ["layer1", "layer3"], 64, 16, {"optimizer": "sgd"}),
    ("resnet18", "none", 64, 16, AGAIN),
    ("mobilenet_v3_small", "none", 64, 32, {"optimizer": "sgd", "momentum": 0.0}),
]
MORE_CASES: list[Case] = [
    ("resnet50", "none", 96, 8, AGAIN),
    ("vit_b_32", "backbone", 224, 16, {}),
    ("efficientnet_b0", "none", 96, 8, {}),
    ("convnext_tiny", "none", 96, 8, {}),
    ("swin_t", ["features.1"], 224, 2, {}),
]


def named(case: Case) -> str:
    model, frozen, side, batch, hyperparameters = case
    return f"{model} {frozen} {side}px batch {batch} {hyperparameters or ''}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_step_holds_what_the_plan_says(case: Case) -> None:
    compare(*case)


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE_CASES, ids=named)
def test_a_step_of_further_networks_holds_what_the_plan_says(case: Case) -> None:
    compare(*case)


def compare(name: str, frozen: Any, side: int, batch: int, hyperparameters: dict[str, Any]) -> None:
    """At most 3% above the plan, and not far below it: the plan adds up what is not all there at once."""
    job = job_on(name, frozen, side, {"batch_size": batch, "precision": "fp32", **hyperparameters})
    tree = catalog.get(name).tree_at((side, side))
    plan = resolve(job.freeze, tree)
    held = most_held_in_a_step(job, plan, batch)
    said = told(job, plan, tree)
    expected = (said.total_bytes or 0) - said.context_bytes
    assert held / 1.03 <= expected <= held * 1.25, f"said {expected:,}, held {held:,}: {said}"


def told(job: ResolvedJob, plan: FreezePlan, tree: ModuleTree) -> PhaseMemory:
    flow = catalog.flow_of(job.target.name)
    figures = planned(Subject(job, plan, tree, flow, None, 1, "cuda", validates=False)).figures
    (phase,) = figures.memory.phases
    return phase


def most_held_in_a_step(job: ResolvedJob, plan: FreezePlan, batch: int) -> int:
    """Of the second step: the first one makes the optimizer's state."""
    size = (job.preprocessing.height, job.preprocessing.width)
    model = models.build(job.target.name, "torchvision", image_size=size)
    if job.hyperparameters.gradient_checkpointing:
        recompute(model, catalog.get(job.target.name).tree.blocks)
    freeze(model, plan.phases[0])
    set_training_modes(model, plan.phases[0])
    optimizer = make_optimizer(model, plan.phases[0], job.hyperparameters)
    optimizer.defaults["foreach"] = True  # as on a GPU
    for group in optimizer.param_groups:
        group["foreach"] = True
    live = LiveTensors([*model.parameters(), *model.buffers()])
    with live:
        for _ in range(2):
            live.most = live.now
            step(model, optimizer, torch.zeros(batch, 3, *size, dtype=torch.uint8))
    return live.most


def step(model: nn.Module, optimizer: torch.optim.Optimizer, pixels: Tensor) -> None:
    labels = torch.zeros(len(pixels), dtype=torch.long)
    cross_entropy(model(pixels.float()), labels).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def job_on(name: str, frozen: Any, side: int, hyperparameters: dict[str, Any]) -> ResolvedJob:
    known = catalog.get(name)
    made = Architecture(
        source="torchvision",
        name=name,
        num_classes=known.tree.num_classes or 0,
        head=list(known.tree.head),
    )
    return ResolvedJob(
        task="classification",
        base=made,
        target=made,
        replace_head=False,
        weights=NoWeights(),
        class_names=[],
        freeze=parse_freeze(frozen),
        hyperparameters=resolve_hyperparameters(Hyperparameters.model_validate(hyperparameters), 1),
        preprocessing=ResolvedPreprocessing(
            height=side,
            width=side,
            mean=[0.0, 0.0, 0.0],
            std=[1.0, 1.0, 1.0],
            augment="none",
            max_unreadable_fraction=0.0,
        ),
        validation_fraction=None,
        max_duration_s=None,
        seed=0,
    )
