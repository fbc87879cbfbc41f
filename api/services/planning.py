"""From a resolved job to its plan: taken from what was planned before where nothing that matters differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from api.services.base_networks import BaseNetwork
from api.services.plan_cache import KnownPlan, PlanCache
from shared.domain.device import Device
from shared.domain.effects import check_effects
from shared.domain.fits import Demand, NodeKind, fits, warnings
from shared.domain.freeze import resolve
from shared.domain.plan import Subject, planned
from shared.domain.resolved import ResolvedJob
from shared.domain.spec import JobSpec

# What decides nothing in a plan. All else of a job is part of the key, so that a new field is by itself.
_NO_MATTER: dict[str, Any] = {
    "base": True,
    "weights": True,
    "class_names": True,
    "validation_fraction": True,
    "max_duration_s": True,
    "seed": True,
    "capture": True,
    "hyperparameters": {
        *("learning_rate", "lr_schedule", "warmup_steps"),
        *("gradient_clip_norm", "label_smoothing", "early_stopping_patience"),
        "save_total_limit",
    },
    "preprocessing": {"mean", "std", "max_unreadable_fraction"},
}


@dataclass(frozen=True)
class JobPlan:
    """A job's plan with what the nodes make of it."""

    known: KnownPlan
    demand: Demand
    kinds: list[NodeKind]

    @cached_property
    def on_nodes(self) -> Mapping[str, Any]:
        """`fits` and `warnings`, as plain JSON values."""
        found = [fit.model_dump(mode="json") for fit in fits(self.demand, self.kinds)]
        return {"fits": found, "warnings": warnings(self.demand, self.kinds)}

    def text(self, **beside: Any) -> bytes:
        """The whole as a JSON object, `beside` and what belongs to the nodes before it."""
        outer = json.dumps({**beside, **self.on_nodes}, ensure_ascii=False, separators=(",", ":")).encode()
        return outer[:-1] + b"," + self.known.text[1:]

    def data(self) -> dict[str, Any]:
        """The whole as plain JSON values of the caller's own."""
        found: dict[str, Any] = json.loads(self.text())
        return found


def plan_job(
    cache: PlanCache, spec: JobSpec, job: ResolvedJob, network: BaseNetwork, kinds: list[NodeKind]
) -> JobPlan:
    """The plan of `job`; `network` is the one that will be trained. Raises Invalid as `resolve` does."""
    world_size = spec.resources.world_size
    device: Device = "cpu" if spec.resources.accelerator == "cpu" else "cuda"

    def make() -> KnownPlan:
        plan = resolve(
            job.freeze,
            network.tree,
            head_replaced=job.replace_head,
            n_epochs=job.hyperparameters.n_epochs,
            training_steps=network.training_steps,
        )
        check_effects(job.hyperparameters, network.tree, plan)
        flow, why_none = network.flow, network.why_no_flow
        subject = Subject(job, plan, network.tree, flow, why_none, world_size, device, spec.has_validation)
        made = planned(subject)
        text = plan.model_dump_json()[:-1] + "," + made.figures.model_dump_json()[1:]
        return KnownPlan(text.encode(), MappingProxyType(dict(made.needs)))

    asked = [world_size, device, spec.has_validation, network.why_no_flow]
    known = cache.get(f"{job.model_dump_json(exclude=_NO_MATTER)} {asked}", make)
    batch_size, asked_bytes = job.hyperparameters.batch_size, spec.resources.min_memory_bytes
    demand = Demand(known.needs, batch_size, world_size, asked_bytes, spec.resources.nodes)
    return JobPlan(known, demand, kinds)
