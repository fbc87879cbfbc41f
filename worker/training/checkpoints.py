"""Checkpoints: whole or not there, refused when damaged, enough to go on as if nothing had happened.

    checkpoints/step-000123/
      moving.safetensors   what training may change; the rest comes from the base again
      best.safetensors     the same for the best epoch so far, where that is not the state above
      state.pt             optimizer, scaler, random generators of all ranks, position, history
      manifest.json        sizes and sha256 of the others, written last

A head trained on a frozen backbone thus makes checkpoints of a few kilobytes. The hash of the frozen part
stands in the state, so that a checkpoint never goes onto another base.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from shared.domain.events import CHECKPOINT_FOLDER, MANIFEST_FILE, CheckpointManifest, ManifestEntry
from worker.training.errors import TrainingFailed
from worker.training.files import sync_folder, write_durably

MOVING_FILE = "moving.safetensors"
BEST_FILE = "best.safetensors"
STATE_FILE = "state.pt"
# A reader may still be copying the one before the last.
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on. `state` holds tensors and plain values only."""

    moving: Mapping[str, Tensor]
    best: Mapping[str, Tensor] | None
    state: Mapping[str, Any]


def write_checkpoint(
    out: Path, checkpoint: Checkpoint, *, epoch: int, step: int, is_best: bool, metrics: Mapping[str, float]
) -> str:
    """Writes a checkpoint below `out`, drops old ones, and returns the new folder relative to `out`."""
    folder = out / CHECKPOINT_FOLDER
    folder.mkdir(exist_ok=True)
    name = f"step-{step:06d}"
    aside = folder / f".{name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    files = [_write_file(aside / file, content) for file, content in _contents(checkpoint).items()]
    manifest = CheckpointManifest(epoch=epoch, step=step, is_best=is_best, metrics=dict(metrics), files=files)
    write_durably(aside / MANIFEST_FILE, manifest.model_dump_json(indent=1).encode())
    sync_folder(aside)
    shutil.rmtree(folder / name, ignore_errors=True)
    aside.rename(folder / name)
    sync_folder(folder)
    _drop_old(folder)
    return f"{CHECKPOINT_FOLDER}/{name}"


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads and verifies a checkpoint. Raises TrainingFailed where a file is not what its manifest says."""
    manifest = _read_manifest(folder)
    contents = {entry.name: _read_verified(folder, entry) for entry in manifest.files}
    best = contents.get(BEST_FILE)
    return Checkpoint(
        moving=load(contents[MOVING_FILE]),
        best=None if best is None else load(best),
        state=torch.load(BytesIO(contents[STATE_FILE]), map_location="cpu", weights_only=True),
    )


def _contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    state = BytesIO()
    torch.save(dict(checkpoint.state), state)
    contents = {MOVING_FILE: save(dict(checkpoint.moving)), STATE_FILE: state.getvalue()}
    if checkpoint.best is not None:
        contents[BEST_FILE] = save(dict(checkpoint.best))
    return contents


def _write_file(path: Path, content: bytes) -> ManifestEntry:
    write_durably(path, content)
    return ManifestEntry(name=path.name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _drop_old(folder: Path) -> None:
    """Keeps the last ones and the best one."""
    whole = (path for path in folder.iterdir() if not path.name.startswith("."))
    steps = sorted(whole, key=lambda path: int(path.name.removeprefix("step-")))
    best = [path for path in steps if _read_manifest(path).is_best][-1:]
    for path in steps[:-KEPT]:
        if path not in best:
            shutil.rmtree(path)


def _read_manifest(folder: Path) -> CheckpointManifest:
    try:
        return CheckpointManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"its manifest cannot be read: {error}") from error


def _read_verified(folder: Path, entry: ManifestEntry) -> bytes:
    try:
        content = (folder / entry.name).read_bytes()
    except OSError as error:
        raise _damaged(folder, f"{entry.name} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise _damaged(
            folder, f"{entry.name} is not what its manifest says ({len(content)} of {entry.bytes} bytes)"
        )
    return content


def _damaged(folder: Path, what: str) -> TrainingFailed:
    return TrainingFailed(
        f"the checkpoint {folder.name} is damaged: {what}",
        code="damaged_checkpoint",
        hint="go on from an earlier checkpoint, or start anew",
    )
