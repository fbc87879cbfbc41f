"""Who handles an allocation on this node: a lock held from before the claim until after its end.

A claimed allocation that nobody handles was left by a process that died; the kernel frees the lock then.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def all_kept_out(work_dir: Path) -> Iterator[bool]:
    """Keep every allocation from being handled, to the end of the block; False if one is handled now."""
    with _gate(work_dir, fcntl.LOCK_EX) as shut:
        yield shut


@contextmanager
def handling(work_dir: Path, allocation_id: str) -> Iterator[bool]:
    """Be the one that handles the allocation, to the end of the block; False if somebody else does."""
    with _gate(work_dir, fcntl.LOCK_SH) as open_, _own_lock(work_dir, allocation_id) as mine:
        yield open_ and mine


@contextmanager
def _own_lock(work_dir: Path, allocation_id: str) -> Iterator[bool]:
    path = _lock_path(work_dir, allocation_id)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Without a name, its last owner has just removed it: held, it would keep nobody away.
        mine = _try_lock(descriptor) and os.fstat(descriptor).st_nlink > 0
        yield mine
        if mine:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def is_handled(work_dir: Path, allocation_id: str) -> bool:
    """Whether a living process of this node handles the allocation."""
    try:
        descriptor = os.open(_lock_path(work_dir, allocation_id), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def n_handled(work_dir: Path) -> int:
    """How many allocations living processes of this node handle now."""
    return sum(is_handled(work_dir, allocation_id) for allocation_id in left_behind(work_dir))


def forget(work_dir: Path, allocation_id: str) -> None:
    """Remove the lock that a killed process has left, unless a living one handles the allocation again."""
    with handling(work_dir, allocation_id):
        return


def left_behind(work_dir: Path) -> set[str]:
    """The allocations that have a lock here: those handled now, and those whose process was killed."""
    return {path.stem for path in (work_dir / "locks").glob("alloc-*.lock")}


@contextmanager
def _gate(work_dir: Path, lock: int) -> Iterator[bool]:
    """The lock that each handling holds shared. Nothing waits for it: a hint that is dropped comes again."""
    path = work_dir / "locks" / "handling.lock"
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _try_lock(descriptor, lock)
    finally:
        os.close(descriptor)


def _lock_path(work_dir: Path, allocation_id: str) -> Path:
    return work_dir / "locks" / f"{allocation_id}.lock"


def _try_lock(descriptor: int, lock: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
