"""The losses of a network's own steps on the validation samples, each sample once over all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from shared.domain.freeze_plan import PlanStep
from shared.domain.training_result import Evaluation
from worker.training.datasets import ValidationData
from worker.training.evaluation import share_buffers
from worker.training.generators import generators_put_back, seed_generators
from worker.training.own_steps.loss import LossOf, figure
from worker.training.run import Run
from worker.training.sampling import evaluation_batches, mixed_seed


def evaluate_steps(run: Run, data: ValidationData, steps: Sequence[PlanStep], batch_size: int) -> Evaluation:
    """Each step's mean loss, and their sum as the loss, with rank 0's buffers. The model stays in eval mode.

    What a loss draws at random is drawn alike after every epoch, and training draws as if there had been no
    evaluation.
    """
    model, ranks = run.model, run.ranks
    share_buffers(model, ranks)
    model.eval()
    losses = [LossOf(model, step.loss) for step in steps]
    sums = torch.zeros(len(steps) + 1, dtype=torch.float64)
    batches = evaluation_batches(data.indices, batch_size, ranks.rank, ranks.world_size)
    with generators_put_back(ranks.device), torch.no_grad(), run.precision.autocast():
        seed_generators(mixed_seed(run.spec.seed, ranks.rank))
        for batch in data.batches.load(batches):
            inputs, target = run.on_device(batch)
            of_batch = torch.stack([loss(inputs, target).double().cpu() for loss in losses])
            sums += len(inputs) * torch.cat([of_batch, torch.ones(1, dtype=torch.float64)])
    *totals, n = ranks.sum(sums).tolist()
    means = {figure(step): total / n for step, total in zip(steps, totals, strict=True)}
    return Evaluation(loss=sum(means.values()), n_samples=round(n), metrics=means)
