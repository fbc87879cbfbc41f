"""Processes below this one: found by walking the process table, stopped, woken and killed until none is left.

Linux only. torch elastic starts ranks in sessions of their own, so no process group or session finds them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_AGAIN_S = 0.02
_NONE_KEPT: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the process table. `state` is the kernel's letter: R, S, T (stopped), Z (ended) ..."""

    pid: int
    parent: int
    state: str


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children, where they can still be found."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_inspection() -> None:
    """Other processes of the same uid can no longer read this one's memory and environment."""
    _prctl(_PR_SET_DUMPABLE, 0)


def bind_to_parent(parent: int, death_signal: signal.Signals) -> None:
    """Have the kernel send `death_signal` here when process `parent` ends; exits if it has ended already.

    The kernel watches the thread that started this process, so that must be the parent's main thread.
    """
    _prctl(_PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != parent:
        raise SystemExit("the process that started this one has ended")


def descendants(root: int, *, keep: Collection[int] = _NONE_KEPT) -> list[Entry]:
    """Every process below `root`, ended ones included, except `keep` and what is below those."""
    children: dict[int, list[Entry]] = {}
    for entry in process_table():
        children.setdefault(entry.parent, []).append(entry)
    found: list[Entry] = []
    waiting = [root]
    while waiting:
        below = [entry for entry in children.pop(waiting.pop(), []) if entry.pid not in keep]
        found += below
        waiting += [entry.pid for entry in below]
    return found


def process_table() -> Iterator[Entry]:
    """All processes that can be seen here."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                yield _entry(int(name))


def stop_all(root: int) -> None:
    """SIGSTOP every descendant of `root`, again until none runs: one may have been started meanwhile."""
    _signal_until_none(root, signal.SIGSTOP, done="TtZX", limit_s=5.0)


def wake_all(root: int) -> None:
    """SIGCONT every descendant of `root` that is stopped."""
    for entry in descendants(root):
        if entry.state == "T":
            _send(entry.pid, signal.SIGCONT)


def kill_all(root: int, *, keep: Collection[int] = _NONE_KEPT, limit_s: float = 60.0) -> bool:
    """SIGKILL every descendant of this process, whose id is `root`, and reap them until none is left.

    `root` must be a child subreaper, else orphans are not below it. False: after `limit_s` some still live,
    which only a process stuck in the kernel does.
    """
    until = time.monotonic() + limit_s
    while left := descendants(root, keep=keep):
        for entry in left:
            _send(entry.pid, signal.SIGKILL)
        for entry in left:
            _reap(entry.pid)
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_AGAIN_S)
    return True


def _signal_until_none(root: int, number: signal.Signals, *, done: str, limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while left := [entry for entry in descendants(root) if entry.state not in done]:
        for entry in left:
            _send(entry.pid, number)
        if time.monotonic() > until:
            return
        time.sleep(_LOOK_AGAIN_S)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, number)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # another's child: it becomes ours when that one has ended
        os.waitpid(pid, os.WNOHANG)


def _entry(pid: int) -> Entry:
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name stands in brackets and may hold anything, brackets too: read from the last one on.
        state, parent = file.read().rpartition(b")")[2].split()[:2]
    return Entry(pid, int(parent), state.decode())


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(argument) for argument in (value, 0, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
