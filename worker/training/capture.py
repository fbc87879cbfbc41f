"""Activations of the model that a training job keeps, on its validation samples.

They are computed when the model is written and nothing is trained any more, so that asking for them moves no
bit of it. What cannot be saved is found out before training, by forwards that leave no trace.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from shared.domain.activations import ModuleActivations, SavedActivations
from shared.domain.job import StopReason
from worker.training.eval_mode import in_eval_mode
from worker.training.extraction_pass import ExtractionPass
from worker.training.extraction_work import Source
from worker.training.freezing import named_tensors
from worker.training.proofs import combined, digests
from worker.training.run import Run


class Capture:
    """Every rank of a run makes one and calls its methods, whether or not the job asked for activations."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pass = _extraction_pass(run)
        self._layout: Mapping[str, ModuleActivations] = {}

    def check(self) -> None:
        """Raises TrainingFailed where a module's output cannot be saved, or all of it is too much."""
        if self._pass is not None:
            with in_eval_mode(self._run.model):
                self._layout = self._pass.preflight()

    def take(self) -> SavedActivations | StopReason | None:
        """Saves what was asked for; None where nothing was. Rank 0 has the model that is kept."""
        run = self._run
        if self._pass is None:
            return None
        run.progress.enter("extracting")
        share_model(run)
        with in_eval_mode(run.model):
            digest = combined(digests(run.model, named_tensors(run.model)))
            saved = self._pass.run(self._layout, run.spec.target.name, digest, run.time_limit())
        run.progress.enter("saving")
        return saved


def share_model(run: Run) -> None:
    """Rank 0's values of all that may have moved, on every rank."""
    with torch.no_grad():
        for name, tensor in named_tensors(run.model).items():
            if name not in run.frozen.names:
                run.ranks.from_first(tensor.data)


def _extraction_pass(run: Run) -> ExtractionPass | None:
    spec, validation = run.spec, run.data.validation
    if spec.capture is None:
        return None
    assert validation is not None, "a job without validation data cannot ask for activations of it"
    batches = validation.batches
    return ExtractionPass(
        model=run.model,
        wanted=spec.capture,
        source=Source(batches.pictures, batches, validation.indices, spec.class_names),
        batch_size=2 * spec.hyperparameters.batch_size // run.ranks.world_size,
        normalize=run.normalize,
        out=run.out,
        ranks=run.ranks,
        progress=run.progress,
    )
