"""All that stays the same from the first step of a run to the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from shared.domain.events import TrainerSpec
from shared.domain.freeze import PlanPhase
from worker.training.datasets import Data, open_data
from worker.training.freezing import FrozenPart, frozen_part
from worker.training.loading import Batch
from worker.training.network import block_paths, build_network
from worker.training.own_steps.task import OwnSteps
from worker.training.precision import Precision, choose_precision
from worker.training.progress import Progress
from worker.training.proofs import Digests, combined, digests, hash_of_plan
from worker.training.ranks import Ranks
from worker.training.recomputation import Recomputed, recompute
from worker.training.state import Identity
from worker.training.synchronised import check_has_effect
from worker.training.tasks import Task, task_of
from worker.training.time_limit import TimeLimit
from worker.training.transforms import Normalize


@dataclass(frozen=True)
class Run:
    """The network, its data, and how they are to be brought together."""

    spec: TrainerSpec
    task: Task | OwnSteps
    out: Path
    ranks: Ranks
    progress: Progress
    model: nn.Module
    frozen: FrozenPart
    frozen_before: Digests
    data: Data
    precision: Precision
    normalize: Normalize
    recomputed: Mapping[str, Recomputed]

    @property
    def total_steps(self) -> int:
        return self.spec.hyperparameters.n_epochs * self.data.order.steps_per_epoch

    @property
    def identity(self) -> Identity:
        return Identity(
            frozen_hash=combined(self.frozen_before),
            plan_hash=hash_of_plan(self.spec.freeze_plan),
            n_train_samples=len(self.data.order.indices),
            batch_size=self.spec.hyperparameters.batch_size,
            n_epochs=self.spec.hyperparameters.n_epochs,
            learning_rate=self.spec.hyperparameters.learning_rate,
        )

    def time_limit(self) -> TimeLimit:
        """max_duration_s from here on; where nobody says what earlier tries took, the checkpoint does."""
        told, known = self.spec.spent_s, sum(self.progress.seconds.values())
        return TimeLimit(self.spec.max_duration_s, told or 0.0, self.out, ran_before_s=known)

    def phase_at(self, epoch: int) -> PlanPhase:
        """The last phase of the plan that has begun by `epoch`."""
        return [phase for phase in self.spec.freeze_plan.phases if phase.from_epoch <= epoch][-1]

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A loaded batch as (normalised inputs, the task's target)."""
        pixels, loaded = batch
        inputs = self.normalize(pixels)
        return inputs, self.task.target(inputs, loaded)


def load_run(spec: TrainerSpec, out: Path, ranks: Ranks, progress: Progress) -> Run:
    """Builds the network, hashes its frozen part, and opens the data."""
    precision = choose_precision(spec.hyperparameters.precision, ranks.device)
    model = build_network(spec)
    frozen = frozen_part(model, spec.freeze_plan.phases)
    before = digests(model, frozen.names)
    asked = spec.hyperparameters
    if asked.sync_batch_norm:
        check_has_effect(model, spec.freeze_plan.phases)
    return Run(
        spec=spec,
        task=task_of(spec),
        out=out,
        ranks=ranks,
        progress=progress,
        model=model.to(ranks.device),
        frozen=frozen,
        frozen_before=before,
        data=open_data(spec, ranks, progress),
        precision=precision,
        normalize=Normalize(spec.preprocessing, ranks.device),
        recomputed=recompute(model, block_paths(model, spec)) if asked.gradient_checkpointing else {},
    )
