"""Lock files of slots: whoever computes there holds it shared; free is what can be had exclusively."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def slot_lock_path(work_dir: Path, slot: int) -> Path:
    """The lock file of a slot, below the node's work folder."""
    return work_dir / "locks" / f"slot-{slot}.lock"


def prepare_slot_locks(work_dir: Path, n_slots: int) -> None:
    """Make the files, readable for trainers under another uid: a lock needs no more."""
    for slot in range(n_slots):
        path = slot_lock_path(work_dir, slot)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.touch(mode=0o644)


def try_exclusive(path: Path) -> bool:
    """Whether nobody holds the lock: no process computes on the slot. The lock is given back at once.

    Holders take it shared with a wait, never without: this look can be in the way for an instant.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def hold_shared(path: Path) -> int:
    """Hold the lock shared until the returned descriptor is closed or the process ends."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor
