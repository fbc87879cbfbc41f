"""The folder of a run's checkpoints: which names stand in it, which go, and how it makes room on a full disk.

A name `step-000123` is a whole checkpoint whenever it is seen, also by whoever looks while this process dies:
it is given last, and taken away first. What is begun or going has a name that starts with a dot.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from shared.domain.disk_full import is_disk_full
from shared.domain.events import CHECKPOINT_FOLDER, MANIFEST_FILE, CheckpointManifest
from worker.training.errors import TrainingFailed

# The newest, and the one before it, which an upload may be about to open.
KEPT = 2
T = TypeVar("T")


def with_room(out: Path, write: Callable[[], T]) -> T:
    """Runs `write`; where the disk is full, once more without the checkpoints that the run can do without."""
    try:
        return write()
    except OSError as error:
        if not (is_disk_full(error) and drop_old(out / CHECKPOINT_FOLDER, kept=1)):
            raise
    return write()


def drop_old(folder: Path, kept: int) -> bool:
    """Leaves the last `kept` ones and the best one. Whether any went."""
    steps = whole_ones(folder)
    best = [path for path in steps if _is_best(path)][-1:]
    going = [path for path in steps[:-kept] if path not in best]
    for path in going:
        with suppress(OSError):  # it stays, which costs room and nothing else
            hide(path)
    discard_hidden(folder)
    return bool(going)


def whole_ones(folder: Path) -> list[Path]:
    """The checkpoints by step, the newest last."""
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def hide(path: Path) -> None:
    """Takes the name away."""
    aside = path.with_name(f".{path.name}.dropped")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)


def discard_hidden(folder: Path) -> None:
    """Removes what has no name any more, or got none: of this process, or of one that died here."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def read_manifest(folder: Path) -> CheckpointManifest:
    """Raises TrainingFailed where it is not there or is none."""
    try:
        return CheckpointManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(folder, f"its manifest cannot be read: {error}") from error


def damaged(folder: Path, what: str) -> TrainingFailed:
    """The error of a checkpoint that cannot be used."""
    return TrainingFailed(
        f"the checkpoint {folder.name} is damaged: {what}",
        code="damaged_checkpoint",
        hint="go on from an earlier checkpoint, or start anew",
    )


def _is_best(folder: Path) -> bool:
    try:
        return read_manifest(folder).is_best
    except TrainingFailed:
        return False  # the disk has damaged it: no reason to keep it, nor to end the run
