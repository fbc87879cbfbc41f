"""Writes a run's checkpoints, and takes a run up again from one."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from errno import errorcode
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.domain.disk_full import is_disk_full
from shared.domain.events import MANIFEST_FILE, CheckpointLine
from worker.training.changed import tell_of_changes
from worker.training.checkpoints import write_checkpoint
from worker.training.errors import TrainingFailed
from worker.training.finite import check_weights
from worker.training.generators import restore_generators, save_generators, seed_generators
from worker.training.phases import Phases
from worker.training.run import Run
from worker.training.sampling import mixed_seed
from worker.training.state import (
    RunState,
    from_checkpoint,
    moving_tensors,
    put_back,
    to_checkpoint,
)


@dataclass(frozen=True)
class TakenUp:
    """What a checkpoint holds beside the model and the state: it is put back once the parts are built."""

    phase: Mapping[str, Any]
    generators: Mapping[str, Tensor]


def take_up(run: Run, folder: Path) -> tuple[RunState, TakenUp]:
    """Puts the checkpoint's tensors into the model. Raises TrainingFailed for one of another run."""
    state, checkpoint = from_checkpoint(folder, run.identity, run.ranks, run.spec.changes)
    put_back(run.model, checkpoint.moving)
    for phase, seconds in checkpoint.state["seconds"].items():
        run.progress.seconds[phase] = run.progress.seconds.get(phase, 0.0) + seconds
    run.progress.note(
        "resumed", f"going on from step {state.step}, epoch {state.epoch}", {"step": state.step}
    )
    tell_of_changes(run.progress, state.changes, state.step)
    return state, TakenUp(checkpoint.state["phase"], checkpoint.state["generators"])


def check_same_start(run: Run, step: int) -> None:
    """Raises TrainingFailed, on every rank, where some go on from another checkpoint than rank 0.

    Each node fetches it for itself, and one may find a file damaged that another could read.
    """
    folder = run.spec.resume_from
    which = _fingerprint(Path(folder)) if folder is not None else 0
    every = [tuple(one.tolist()) for one in run.ranks.gather(torch.tensor([step, which]))]
    other = next((rank for rank, start in enumerate(every) if start != every[0]), None)
    if other is not None:
        raise TrainingFailed(
            f"the ranks do not go on from one checkpoint: rank 0 from step {every[0][0]}, "
            f"rank {other} from step {every[other][0]}",
            code="checkpoint_mismatch",
        )


def _fingerprint(checkpoint: Path) -> int:
    """Of its manifest, which holds the sums of all other files."""
    manifest = (checkpoint / MANIFEST_FILE).read_bytes()
    return int.from_bytes(hashlib.sha256(manifest).digest()[:6])


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
        self._last_whole: int | None = None
        self._fails = False

    def write(self, state: RunState, phases: Phases, *, is_best: bool) -> None:
        """A second one at the same place in the run is left out.

        One that the disk does not take costs the run nothing but this: it goes on, and says so. Raises
        TrainingFailed rather than save what is not finite.
        """
        place = (state.epoch, state.step)
        if self._written == place:
            return
        self._written = place
        run = self._run
        check_weights(run, state.step)
        generators = save_generators(run.ranks)
        if not run.ranks.is_first:
            return
        run.progress.count_time()
        state.seconds = dict(run.progress.seconds)
        moving = moving_tensors(run.model, run.frozen.names)
        checkpoint = to_checkpoint(state, run.identity, moving, phases.saved(), generators)
        metrics = _metrics(state)
        try:
            folder = write_checkpoint(
                run.out, checkpoint, epoch=state.epoch, step=state.step, is_best=is_best, metrics=metrics
            )
        except OSError as error:
            self._tell_of_failure(state.step, error)
            return
        self._fails, self._last_whole = False, state.step
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

    def _tell_of_failure(self, step: int, error: OSError) -> None:
        """The first of several in a row is told as an event, all are in the log."""
        last = (
            "none was written before"
            if self._last_whole is None
            else f"the last is of step {self._last_whole}"
        )
        message = (
            f"the checkpoint at step {step} could not be written, the run goes on ({last}): {error.strerror}"
        )
        if self._fails:
            self._run.progress.say(f"warn: {message}")
            return
        self._fails = True
        data = {
            "step": step,
            "last_step": self._last_whole,
            "reason": "disk_full" if is_disk_full(error) else errorcode.get(error.errno or 0, "unknown"),
        }
        self._run.progress.note("checkpoint_not_written", message, data, level="warn")


def _metrics(state: RunState) -> dict[str, float]:
    """Of the last whole epoch; empty before there is one. JSON has no word for what is not finite."""
    last = state.history[-1] if state.history else {}
    return {
        key: value for key, value in last.items() if key not in ("epoch", "step") and math.isfinite(value)
    }
