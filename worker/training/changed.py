"""What a job was changed in while it was paused, as the run that goes on honours it: told, never guessed.

A checkpoint says how long and how fast its run was to train. Where this run differs, one of the job's
recorded changes must say so; all else in which they differ makes it the checkpoint of another run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shared.domain.changes import LEARNING_RATE, N_EPOCHS, HeldFrom, SpecChange
from worker.training.errors import TrainingFailed
from worker.training.progress import Progress

# Of a run's identity, what may be changed, by the names of the job's fields.
_FIELDS = {"n_epochs": N_EPOCHS, "learning_rate": LEARNING_RATE}

Differences = Mapping[str, tuple[Any, Any]]
"""Name in the identity -> (the checkpoint's value, this run's)."""


def differences(saved: Mapping[str, Any], own: Mapping[str, Any]) -> Differences:
    """In what a checkpoint's identity differs. One of before there were changes tells none of those."""
    was = {**{name: own[name] for name in _FIELDS}, **saved}
    return {name: (was[name], value) for name, value in own.items() if was[name] != value}


def refuse_unexplained(differing: Differences, changes: Iterable[SpecChange]) -> None:
    """Raises TrainingFailed for a difference that no change of the job brought about."""
    left = {(change.field, change.old) for change in changes}
    unexplained = [
        f"{name}: {saved} there, {own} here"
        for name, (saved, own) in differing.items()
        if (_FIELDS.get(name), saved) not in left
    ]
    if unexplained:
        raise TrainingFailed(
            f"the checkpoint is of another run: {'; '.join(unexplained)}", code="checkpoint_mismatch"
        )


def held_from(differing: Differences, step: int) -> list[HeldFrom]:
    """What holds from `step` on."""
    return [
        HeldFrom(field=_FIELDS[name], old=old, new=new, step=step) for name, (old, new) in differing.items()
    ]


def from_the_start(changes: Sequence[SpecChange]) -> list[HeldFrom]:
    """What holds from the first step on, in a run without a checkpoint to go on from."""
    first = {change.field: change.old for change in reversed(changes)}
    last = {change.field: change.new for change in changes}
    return [
        HeldFrom(field=field, old=first[field], new=last[field], step=0)
        for field in _FIELDS.values()
        if field in last and first[field] != last[field]
    ]


def tell_of_changes(progress: Progress, changes: Sequence[HeldFrom], step: int) -> None:
    """Of those that hold from `step` on."""
    new = [change for change in changes if change.step == step]
    if new:
        words = "; ".join(f"{change.field} is {change.new:g}, no longer {change.old:g}" for change in new)
        data = {"step": step, "changes": [change.model_dump() for change in new]}
        progress.note("changed", f"from step {step} on: {words}", data)
