"""What a trainer process does before it imports torch: who it is, whom it dies with, what it holds.

THAW_TRAINER_UID    "uid" or "uid:gid" to run as; left out: stay as started
THAW_LAUNCHER_PID   the launcher; a process that does not descend from it is an orphan and ends
THAW_SLOT_LOCKS     colon-separated lock files of the node's slots in the order of local ranks
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
LOCK_WAIT_S = 10.0


class CannotStart(Exception):
    """The process must not train here: its launcher is gone, or its slot belongs to another."""


def prepare(env: Mapping[str, str]) -> None:
    """Drops privileges, ties this process to its parent and takes its slot's lock. Raises CannotStart.

    From here on what is printed is written line by line.
    """
    write_whole_lines()
    parent = os.getppid()
    if uid := env.get("THAW_TRAINER_UID"):
        become(uid)
    die_with_parent(parent)
    if launcher := env.get("THAW_LAUNCHER_PID"):
        _check_descent(int(launcher))
    if locks := env.get("THAW_SLOT_LOCKS"):
        hold_slot(Path(locks.split(":")[int(env.get("LOCAL_RANK", "0"))]))


def write_whole_lines() -> None:
    """Ranks share one pipe: pieces of lines would mix there, whole ones do not.

    torch elastic starts Python with -u, under which print() writes each of its arguments through at once.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)


def become(uid: str) -> None:
    """Run as another user from here on, without a way back."""
    user, _, group = uid.partition(":")
    if os.geteuid() == 0:
        os.setgroups([])
    if os.getegid() != int(group or user):
        os.setgid(int(group or user))
    if os.geteuid() != int(user):
        os.setuid(int(user))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(parent: int) -> None:
    """Be killed when the parent dies. `parent` was read before, so that a death in between is noticed."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise CannotStart(f"the parent process {parent} died while this one started")


def hold_slot(lock: Path) -> int:
    """Hold the slot's lock shared until this process ends. Returns the open descriptor."""
    descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + LOCK_WAIT_S
    while not _lock_shared(descriptor):
        if time.monotonic() > deadline:
            raise CannotStart(f"the slot's lock {lock.name} was held by another for {LOCK_WAIT_S:.0f} s")
        time.sleep(0.02)
    return descriptor


def _lock_shared(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_descent(launcher: int) -> None:
    pid = os.getpid()
    while pid > 1:
        pid = _parent_of(pid)
        if pid == launcher:
            return
    raise CannotStart(f"this process does not descend from its launcher {launcher}")


def _parent_of(pid: int) -> int:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    return int(after_name.split()[1])


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")
