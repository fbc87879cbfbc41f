"""Become the trainer's first process: bound to its launcher's life, under the trainers' uid, then exec.

    python -I -S bound.py PARENT_PID UID COMMAND [ARGUMENT...]

The kernel kills it when PARENT_PID ends, however it ends. A UID other than `-` is taken on first, and no
program that it starts can gain privileges. It runs as a file by itself, in place of work between fork and
exec.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main(argv: list[str]) -> None:
    """Bind, check that the parent still lives, and exec; returns never."""
    parent, uid, command = int(argv[0]), argv[1], argv[2:]
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if uid != "-":
        _become(int(uid))
    # After the change of uid, which clears the death signal.
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        sys.exit("the launcher has ended")
    try:
        os.execvp(command[0], command)  # noqa: S606 - to exec is this program's purpose
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error}")


def _become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(argument) for argument in (value, 0, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
