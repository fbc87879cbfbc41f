"""Processes that write checkpoints and die while they do: at a system call, or when they are killed."""

from __future__ import annotations

import io
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from shared.domain.events import CHECKPOINT_FOLDER
from worker.training.checkpoint_folder import whole_ones
from worker.training.checkpoints import Checkpoint, read_checkpoint, write_checkpoint

# What changes a disk, or brings a change to it.
CHANGING = {"write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir"}


def write(out: Path, step: int) -> None:
    """A small checkpoint, all of whose content tells its step."""
    tensors = {name: torch.full((256,), float(step)) for name in ("weight", "bias")}
    checkpoint = Checkpoint(moving=tensors, best=tensors, state={"step": step, "exp_avg": tensors["bias"]})
    write_checkpoint(out, checkpoint, epoch=step, step=step, is_best=step % 4 == 0, metrics={})


def newest(out: Path) -> int:
    """The step of the newest checkpoint below `out`; 0: there is none. Fails where any is not whole."""
    steps = [0]
    for folder in whole_ones(out / CHECKPOINT_FOLDER):
        found = read_checkpoint(folder)
        step = int(found.state["step"])
        assert found.best is not None
        for tensor in (*found.moving.values(), *found.best.values(), found.state["exp_avg"]):
            assert torch.equal(tensor, torch.full((256,), float(step)))
        assert folder.name == f"step-{step:06d}"
        steps.append(step)
    return max(steps)


def hidden(out: Path) -> list[str]:
    """What was begun there, or was about to go."""
    return sorted(path.name for path in (out / CHECKPOINT_FOLDER).glob(".*"))


def forked(work: Callable[[], None]) -> int:
    """A process that does `work` and ends; its id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended_by(child: int) -> int:
    """The signal that has ended it; 0 for none."""
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


class DiesAt:
    """Kills its own process right before its `n`-th call that changes a disk; counts them without an `n`.

    `power` gone as well: what was written since and not synced is lost.
    """

    def __init__(self, folder: Path, n: int | None = None, *, power: bool = True) -> None:
        self._folder, self._n, self._power = folder, n, power
        self._synced = {path.stat().st_ino for path in folder.rglob("*")}
        self.calls: list[str] = []

    def watch(self, work: Callable[[], None]) -> None:
        sys.setprofile(self._see)
        try:
            work()
        finally:
            sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call" or not _changes_a_disk(function):
            return
        self.calls.append(function.__name__)
        if len(self.calls) == self._n:
            sys.setprofile(None)
            self._die()
        if function.__name__ == "fsync":
            self._synced.add(os.fstat(_descriptor_in(frame)).st_ino)

    def _die(self) -> NoReturn:
        if not self._power:
            for path in self._folder.rglob("*"):
                if path.is_file() and path.stat().st_ino not in self._synced:
                    os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it lives")


def _changes_a_disk(function: Any) -> bool:
    if function.__name__ not in CHANGING:
        return False
    return function.__module__ in ("posix", "_io", "io") or isinstance(function.__self__, io.IOBase)


def _descriptor_in(frame: FrameType) -> int:
    """The descriptor that the function at work is about to sync."""
    found = frame.f_locals["descriptor" if "descriptor" in frame.f_locals else "file"]
    return found if isinstance(found, int) else int(found.fileno())


class Writer:
    """A process that writes one checkpoint after another, as fast as it can, until it is killed."""

    def __init__(self, out: Path, after: int) -> None:
        self._told = mmap.mmap(-1, 16)
        self._told[:] = struct.pack("qq", after, after)
        self._pid = forked(lambda: self._write(out, after))

    def kill(self, after_s: float) -> tuple[int, int]:
        """Kills it after so many seconds. The last step that it had written, and that it had begun."""
        time.sleep(after_s)
        os.kill(self._pid, signal.SIGKILL)
        assert ended_by(self._pid) == signal.SIGKILL
        written, begun = struct.unpack("qq", self._told[:])
        return written, begun

    def _write(self, out: Path, after: int) -> None:
        step = after
        while True:
            self._told[:] = struct.pack("qq", step, step + 1)
            write(out, step + 1)
            step += 1
