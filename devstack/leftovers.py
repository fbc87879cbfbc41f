"""What a Postgres that was killed leaves behind, and what would keep the next one from starting."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_END_BY_THEMSELVES_S = 2.0
_END_BY_FORCE_S = 5.0
_LOOK_AGAIN_S = 0.02


def clear_the_way(data: Path) -> None:
    """See to it that a server can start on the cluster at `data`, which must be this process's alone.

    Backends outlive a killed server for a moment and are given time to end, then are ended. A pid file
    that names what is by now a stranger's process would be taken for a running server, and goes.
    """
    if not _wait_until_unused(data, _END_BY_THEMSELVES_S):
        for pid in _servers_of(data):
            _end(pid)
        if not _wait_until_unused(data, _END_BY_FORCE_S):
            raise RuntimeError(
                f"processes {_servers_of(data)} still use the Postgres cluster {data}; end them"
            )
    _forget_strangers(data / "postmaster.pid")


def _wait_until_unused(data: Path, limit_s: float) -> bool:
    until = time.monotonic() + limit_s
    while _servers_of(data):
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_AGAIN_S)
    return True


def _forget_strangers(pid_file: Path) -> None:
    """The file of a process that is gone stays: with it Postgres finds backends that we cannot see."""
    if not pid_file.exists():
        return
    first = pid_file.read_text().partition("\n")[0].strip()
    if not first.isdigit() or Path("/proc", first).exists():
        pid_file.unlink()


def _servers_of(data: Path) -> list[int]:
    """Process ids of the server on this cluster and of its backends, which work in its folder."""
    numbered = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [int(entry.name) for entry in numbered if _serves(entry, str(data))]


def _serves(process: Path, data: str) -> bool:
    try:
        words = (process / "cmdline").read_text(errors="replace").split("\0")
        if not Path(words[0]).name.startswith("postgres"):
            return False
        return data in words or os.readlink(process / "cwd") == data
    except OSError:  # it has ended meanwhile, or another user's is closed to us
        return False


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended by itself
