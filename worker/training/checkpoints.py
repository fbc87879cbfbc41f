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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from shared.domain.events import CHECKPOINT_FOLDER, MANIFEST_FILE, CheckpointManifest, ManifestEntry
from worker.training import checkpoint_folder
from worker.training.checkpoint_folder import (
    damaged,
    discard_hidden,
    drop_old,
    hide,
    read_manifest,
    with_room,
)
from worker.training.errors import is_out_of_memory
from worker.training.files import sync_folder, write_durably

MOVING_FILE = "moving.safetensors"
BEST_FILE = "best.safetensors"
STATE_FILE = "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on. `state` holds tensors and plain values only."""

    moving: Mapping[str, Tensor]
    best: Mapping[str, Tensor] | None
    state: Mapping[str, Any]


def write_checkpoint(
    out: Path, checkpoint: Checkpoint, *, epoch: int, step: int, is_best: bool, metrics: Mapping[str, float]
) -> str:
    """Writes a checkpoint below `out`, drops old ones, and returns the new folder relative to `out`.

    Raises OSError where the disk does not take it: then nothing of it stays, and the newest one before does.
    """
    folder = out / CHECKPOINT_FOLDER
    if not folder.is_dir():
        folder.mkdir()
        sync_folder(out)
    discard_hidden(folder)
    contents = _contents(checkpoint)
    name = f"step-{step:06d}"

    def write() -> None:
        with _aside(folder, name) as aside:
            files = [_write_file(aside / file, content) for file, content in contents.items()]
            manifest = CheckpointManifest(
                epoch=epoch, step=step, is_best=is_best, metrics=dict(metrics), files=files
            )
            write_durably(aside / MANIFEST_FILE, manifest.model_dump_json(indent=1).encode())

    with_room(out, write)
    drop_old(folder, checkpoint_folder.KEPT)
    return f"{CHECKPOINT_FOLDER}/{name}"


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads and verifies a checkpoint. Raises TrainingFailed where a file is not what its manifest says.

    So it does where all sums are right and what was summed up is no checkpoint: whoever wrote it was broken.
    """
    manifest = read_manifest(folder)
    contents = {entry.name: _read_verified(folder, entry) for entry in manifest.files}
    best = contents.get(BEST_FILE)
    try:
        return Checkpoint(
            moving=load(contents[MOVING_FILE]),
            best=None if best is None else load(best),
            state=torch.load(BytesIO(contents[STATE_FILE]), map_location="cpu", weights_only=True),
        )
    except KeyError as missing:
        raise damaged(folder, f"it has no {missing.args[0]}") from missing
    except Exception as error:  # whatever torch and safetensors raise on bytes that are not theirs
        if is_out_of_memory(error):
            raise
        raise damaged(folder, f"it cannot be read: {type(error).__name__}: {error}") from error


@contextmanager
def _aside(folder: Path, name: str) -> Iterator[Path]:
    """A folder to write into, which gets its name when all is on the disk; gone where that fails."""
    aside = folder / f".{name}.partial"
    aside.mkdir()
    try:
        yield aside
        sync_folder(aside)
        if (folder / name).exists():  # a run by hand, twice into one folder
            hide(folder / name)
        aside.rename(folder / name)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


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


def _read_verified(folder: Path, entry: ManifestEntry) -> bytes:
    try:
        content = (folder / entry.name).read_bytes()
    except OSError as error:
        raise damaged(folder, f"{entry.name} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise damaged(
            folder, f"{entry.name} is not what its manifest says ({len(content)} of {entry.bytes} bytes)"
        )
    return content
