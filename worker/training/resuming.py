"""Writes a run's checkpoints, and takes a run up again from one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from shared.domain.events import CheckpointLine
from worker.training.checkpoints import write_checkpoint
from worker.training.run import Run
from worker.training.sampling import mixed_seed
from worker.training.state import (
    RunState,
    from_checkpoint,
    moving_tensors,
    put_back,
    restore_generators,
    save_generators,
    seed_generators,
    to_checkpoint,
)
from worker.training.stepping import Stepper


@dataclass(frozen=True)
class TakenUp:
    """What a checkpoint holds beside the model and the state: it is put back once the parts are built."""

    optimizer: Mapping[str, Any]
    generators: Mapping[str, Tensor]


def take_up(run: Run, folder: Path) -> tuple[RunState, TakenUp]:
    """Puts the checkpoint's tensors into the model. Raises TrainingFailed for one of another run."""
    state, checkpoint = from_checkpoint(folder, run.identity, run.ranks)
    put_back(run.model, checkpoint.moving)
    for phase, seconds in checkpoint.state["seconds"].items():
        run.progress.seconds[phase] = run.progress.seconds.get(phase, 0.0) + seconds
    run.progress.note(
        "resumed", f"going on from step {state.step}, epoch {state.epoch}", {"step": state.step}
    )
    return state, TakenUp(checkpoint.state["optimizer"], checkpoint.state["generators"])


def put_back_optimizer(stepper: Stepper, taken_up: TakenUp) -> None:
    """Gives the optimizer its moments again; a phase that starts just now begins without any."""
    saved = taken_up.optimizer
    if saved["from_epoch"] == stepper.phase.from_epoch:
        stepper.optimizer.load_state_dict(saved["optimizer"])
        # Empty where the GPU so far needed none; one that computes in fp16 starts with its own scale.
        if saved["scaler"]:
            stepper.scaler.load_state_dict(saved["scaler"])


def set_generators(run: Run, taken_up: TakenUp | None) -> None:
    """Where dropout and the like draw from: each rank its own, from the seed or from the checkpoint."""
    seed_generators(mixed_seed(run.spec.seed, run.ranks.rank))
    if taken_up is not None and not restore_generators(taken_up.generators, run.ranks):
        run.progress.note(
            "ranks_changed",
            "the checkpoint is of another number of ranks: random draws start anew",
            level="warn",
        )


class CheckpointWriter:
    """Writes a checkpoint of the whole run, on rank 0; every rank has to call it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._written: tuple[int, int] | None = None

    def write(self, state: RunState, stepper: Stepper, *, is_best: bool) -> None:
        """A second one at the same place in the run is left out."""
        place = (state.epoch, state.step)
        if self._written == place:
            return
        self._written = place
        run = self._run
        generators = save_generators(run.ranks)
        if not run.ranks.is_first:
            return
        run.progress.count_time()
        state.seconds = dict(run.progress.seconds)
        moving = moving_tensors(run.model, run.frozen.names)
        optimizer = {
            "from_epoch": stepper.phase.from_epoch,
            "optimizer": stepper.optimizer.state_dict(),
            "scaler": stepper.scaler.state_dict(),
        }
        checkpoint = to_checkpoint(state, run.identity, moving, optimizer, generators)
        metrics = _metrics(state)
        folder = write_checkpoint(
            run.out, checkpoint, epoch=state.epoch, step=state.step, is_best=is_best, metrics=metrics
        )
        run.progress.write(
            CheckpointLine(
                time=time.time(),
                epoch=state.epoch,
                step=state.step,
                folder=folder,
                is_best=is_best,
                metrics=metrics,
            )
        )


def _metrics(state: RunState) -> dict[str, float]:
    """Of the last whole epoch; empty before there is one."""
    last = state.history[-1] if state.history else {}
    return {key: value for key, value in last.items() if key not in ("epoch", "step")}
