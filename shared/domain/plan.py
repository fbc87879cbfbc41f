"""A plan: what a freeze plan comes to on the job's network, before anything runs. Pure, and an estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from shared.domain.device import Device
from shared.domain.fixed_prefix import prefix_part
from shared.domain.flow import Flow
from shared.domain.flow_bytes import FlowBytes
from shared.domain.flow_needs import FlowNeeds, flow_needs
from shared.domain.freeze_plan import (
    NORMALISATION,
    FreezePlan,
    PlanPhase,
    normalisation_layers,
    still_modules,
)
from shared.domain.memory import Needs, Training, needs_of, peak
from shared.domain.memory_words import LEFT_OUT, method, no_total, precision
from shared.domain.module_tree import ModuleTree
from shared.domain.output_sizes import artifact_sizes, checkpoint_size
from shared.domain.plan_figures import (
    BatchNorm,
    Memory,
    PhaseBatchNorm,
    PhasePrefix,
    PlanFigures,
    Prefix,
)
from shared.domain.resolved import ResolvedJob
from shared.domain.tensor_bytes import TensorBytes


@dataclass(frozen=True)
class Subject:
    """What is planned: a job with its freeze plan on its network, and the devices that it is meant for.

    `recorded` is the network's flow at whatever size of pictures; where it is None, `why_no_flow` says why.
    """

    job: ResolvedJob
    plan: FreezePlan
    tree: ModuleTree
    recorded: Flow | None
    why_no_flow: str | None
    world_size: int
    device: Device
    validates: bool

    @property
    def training(self) -> Training:
        asked = self.job.preprocessing
        area = asked.height * asked.width
        return Training(self.job.hyperparameters, area, self.world_size, self.validates)

    @cached_property
    def flow(self) -> Flow | None:
        """For pictures of the job's own size."""
        asked = self.job.preprocessing
        return self.recorded.at((asked.height, asked.width)) if self.recorded else None


@dataclass(frozen=True)
class Planned:
    """The figures, and what they were made of: bytes on a device of each kind, by phase."""

    figures: PlanFigures
    needs: Mapping[Device, tuple[Needs, ...]]


def planned(subject: Subject) -> Planned:
    """All figures of a job that do not depend on the nodes there are."""
    job, plan, training = subject.job, subject.plan, subject.training
    weighed = TensorBytes.of(subject.tree)
    flowing = _flowing(subject)
    needs = _needs(subject, weighed, flowing)
    figures = PlanFigures(
        memory=_memory(subject, needs[subject.device]),
        checkpoint=checkpoint_size(weighed, plan.phases, training, _counted_classes(job)),
        artifacts=artifact_sizes(subject.tree, weighed, plan.phases),
        prefix=_prefix(subject, flowing),
        batch_norm=_batch_norm(subject),
    )
    return Planned(figures, needs)


def _flowing(subject: Subject) -> list[FlowNeeds | None]:
    """What each phase makes of the network's flow."""
    if subject.flow is None:
        return [None for _ in subject.plan.phases]
    return [flow_needs(subject.flow, phase.trainable, phase.still) for phase in subject.plan.phases]


def _needs(
    subject: Subject, weighed: TensorBytes, flowing: Sequence[FlowNeeds | None]
) -> dict[Device, tuple[Needs, ...]]:
    phases, training = subject.plan.phases, subject.training
    in_bytes = _in_bytes(subject, flowing)
    devices: tuple[Device, ...] = get_args(Device)
    return {
        device: tuple(
            needs_of(weighed, phase, found, training, device)
            for phase, found in zip(phases, in_bytes, strict=True)
        )
        for device in devices
    }


def _in_bytes(subject: Subject, flowing: Sequence[FlowNeeds | None]) -> list[FlowBytes | None]:
    flow, tree = subject.flow, subject.tree
    if flow is None:
        return [None for _ in flowing]
    evaluating = flow_needs(flow, (), ()).transient_bytes
    run_again = subject.job.hyperparameters.gradient_checkpointing
    return [
        FlowBytes.of(tree, flow, phase.trainable, found, evaluating, run_again=run_again) if found else None
        for phase, found in zip(subject.plan.phases, flowing, strict=True)
    ]


def _memory(subject: Subject, needs: Sequence[Needs]) -> Memory:
    training = subject.training
    batch_size = training.batch_size_per_device
    return Memory(
        device=subject.device,
        precision=precision(training, subject.device),
        batch_size_per_device=batch_size,
        total_bytes=peak(needs, batch_size),
        phases=tuple(phase.at(batch_size) for phase in needs),
        method=method(subject.flow, subject.device),
        left_out=LEFT_OUT[subject.device],
        reason=no_total(subject.why_no_flow) if subject.why_no_flow else None,
    )


def _prefix(subject: Subject, flowing: Sequence[FlowNeeds | None]) -> Prefix | None:
    flow, phases = subject.flow, subject.plan.phases
    if flow is None:
        return None
    n_elements = subject.tree.n_elements
    parts = [prefix_part(flow, found, n_elements) for found in flowing if found is not None]
    whole = parts[0] if len(parts) == 1 else prefix_part(flow, _in_all(flow, phases), n_elements)
    return Prefix(
        **dict(whole),
        phases=tuple(
            PhasePrefix(from_epoch=phase.from_epoch, **dict(part))
            for phase, part in zip(phases, parts, strict=True)
        ),
        note=_on_pictures(subject.job.preprocessing.augment),
    )


def _in_all(flow: Flow, phases: Sequence[PlanPhase]) -> FlowNeeds:
    """The flow with all training that some phase trains, and still what is still in every one."""
    trained = {name for phase in phases for name in phase.trainable}
    still = set.intersection(*(set(phase.still) for phase in phases))
    return flow_needs(flow, trained, still)


def _on_pictures(augment: str) -> str | None:
    if augment == "none":
        return None
    return (
        f"augment {augment!r} shows other pictures in each epoch; the same is computed for the same picture"
    )


def _batch_norm(subject: Subject) -> BatchNorm:
    tree, policy = subject.tree, subject.job.freeze.batch_norm
    layers = [module.path for module in tree.modules if module.class_name in NORMALISATION]
    return BatchNorm(
        policy=policy,
        phases=tuple(_norms_of(tree, layers, phase, policy) for phase in subject.plan.phases),
    )


def _norms_of(tree: ModuleTree, layers: Sequence[str], phase: PlanPhase, policy: str) -> PhaseBatchNorm:
    still = len(set(phase.still).intersection(layers))
    frozen = still if policy == "freeze" else _frozen_norms(tree, phase)
    return PhaseBatchNorm(
        from_epoch=phase.from_epoch,
        n_training=len(layers) - frozen,
        n_still=still,
        n_exempt=frozen - still,
    )


def _frozen_norms(tree: ModuleTree, phase: PlanPhase) -> int:
    return len(normalisation_layers(tree, still_modules(tree, phase.trainable)))


def _counted_classes(job: ResolvedJob) -> int | None:
    """The classes of which an evaluation counts a confusion matrix."""
    return job.target.num_classes if job.task == "classification" else None
