"""Where a run stands: all of it goes into a checkpoint, and a resumed run goes on from exactly there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.domain.changes import HeldFrom, SpecChange
from shared.domain.training_result import Evaluation
from worker.training.changed import differences, held_from, refuse_unexplained
from worker.training.checkpoint_folder import damaged
from worker.training.checkpoints import Checkpoint, read_checkpoint
from worker.training.errors import TrainingFailed
from worker.training.freezing import named_tensors
from worker.training.ranks import Ranks
from worker.training.stop import Sums

Moving = dict[str, Tensor]

# Of the plain values in a checkpoint. A change of what they mean takes another number.
LAYOUT = 2


@dataclass
class Kept:
    """The epoch whose model is to be saved, as far as is known, and how good it is.

    Only rank 0 has its tensors, and only where they may come to differ from the model's own.
    """

    epoch: int
    step: int
    evaluation: Evaluation
    moving: Mapping[str, Tensor] | None


@dataclass
class RunState:
    """Position, counts and history. `step_in_epoch` steps of `epoch` are done, `step` over the whole run."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    partial: Sums = field(default_factory=Sums)
    history: list[dict[str, Any]] = field(default_factory=list)
    kept: Kept | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    changes: list[HeldFrom] = field(default_factory=list)

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the lowest validation loss so far, the first of equals; None without validation."""
        losses = {
            entry["epoch"]: entry["validation_loss"] for entry in self.history if "validation_loss" in entry
        }
        return min(losses, key=losses.__getitem__, default=None)

    @property
    def kept_epoch(self) -> int:
        """The epoch whose model is saved: the last one where there is no validation data."""
        return self.kept.epoch if self.kept else max(0, self.epoch - 1)

    def epochs_since_best(self) -> int:
        return 0 if self.best_epoch is None else self.epoch - 1 - self.best_epoch


@dataclass(frozen=True)
class Identity:
    """What must be the same for a checkpoint to fit a run, but for what the job was changed in."""

    frozen_hash: str
    plan_hash: str
    n_train_samples: int
    batch_size: int
    n_epochs: int
    learning_rate: float


def moving_tensors(model: nn.Module, frozen: frozenset[str]) -> Moving:
    """Copies, on the CPU, of every parameter and buffer that is not in the frozen part."""
    tensors = named_tensors(model)
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in tensors.items()
        if name not in frozen
    }


def put_back(model: nn.Module, moving: Mapping[str, Tensor]) -> None:
    """Copies saved tensors into the model. Raises TrainingFailed where they are not this model's."""
    tensors = named_tensors(model)
    with torch.no_grad():
        for name, saved in moving.items():
            if name not in tensors or tensors[name].shape != saved.shape:
                raise TrainingFailed(
                    f"the checkpoint's {name!r} does not fit this model", code="checkpoint_mismatch"
                )
            tensors[name].copy_(saved)


def to_checkpoint(
    state: RunState,
    identity: Identity,
    moving: Moving,
    phase: Mapping[str, Any],
    generators: Mapping[str, Tensor],
) -> Checkpoint:
    """`phase` holds what the freeze plan's phase at work has gathered, optimizer and proofs included."""
    kept = state.kept
    plain = {
        "layout": LAYOUT,
        "identity": asdict(identity),
        "position": {"epoch": state.epoch, "step_in_epoch": state.step_in_epoch, "step": state.step},
        "partial": asdict(state.partial),
        "history": state.history,
        "kept": kept and {"epoch": kept.epoch, "step": kept.step, "evaluation": kept.evaluation.model_dump()},
        "seconds": state.seconds,
        "changes": [change.model_dump() for change in state.changes],
        "phase": dict(phase),
        "generators": dict(generators),
    }
    is_same = kept is None or kept.step == state.step
    return Checkpoint(moving=moving, best=None if is_same or kept is None else kept.moving, state=plain)


def from_checkpoint(
    folder: Path, identity: Identity, ranks: Ranks, changes: Sequence[SpecChange] = ()
) -> tuple[RunState, Checkpoint]:
    """Reads a checkpoint and refuses one of another run; `changes` may have made this run another."""
    checkpoint = read_checkpoint(folder)
    _check_layout(folder, checkpoint.state)
    try:
        differing = differences(checkpoint.state["identity"], asdict(identity))
        state = _read_state(checkpoint)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(folder, f"{type(error).__name__} while its state was read: {error}") from error
    refuse_unexplained(differing, changes)
    state.changes += held_from(differing, state.step)
    if state.kept is not None and not ranks.is_first:
        state.kept.moving = None
    return state, checkpoint


def _check_layout(folder: Path, saved: object) -> None:
    if not isinstance(saved, dict) or "layout" not in saved:
        raise damaged(folder, "its state is none of a run")
    if saved["layout"] != LAYOUT:
        raise TrainingFailed(
            "the checkpoint was written by another version of Thaw, which keeps other things in it",
            code="checkpoint_of_another_version",
            hint="start the job anew, or go on with the version that wrote it",
        )


def _read_state(checkpoint: Checkpoint) -> RunState:
    saved = checkpoint.state
    position = saved["position"]
    return RunState(
        epoch=position["epoch"],
        step_in_epoch=position["step_in_epoch"],
        step=position["step"],
        partial=Sums(**saved["partial"]),
        history=saved["history"],
        kept=_read_kept(checkpoint) if saved["kept"] is not None else None,
        seconds=saved["seconds"],
        changes=[HeldFrom.model_validate(change) for change in saved.get("changes", ())],
    )


def _read_kept(checkpoint: Checkpoint) -> Kept:
    saved = checkpoint.state["kept"]
    is_same = saved["step"] == checkpoint.state["position"]["step"]
    return Kept(
        epoch=saved["epoch"],
        step=saved["step"],
        evaluation=Evaluation.model_validate(saved["evaluation"]),
        moving=checkpoint.moving if is_same else checkpoint.best,
    )
