"""Become another program that is bound to the life of the process that started it.

    python -I -S bound.py PARENT_PID DEATH_SIGNAL UID COMMAND_PATH [ARGUMENT...]

The kernel sends DEATH_SIGNAL when PARENT_PID ends, however it ends. A UID other than `-` is taken on
first, keeping the right to pass folders that are closed to that user, so that no folder has to be opened to
the world. It runs as a file by itself, in place of work between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def main(argv: list[str]) -> None:
    """Bind, check that the parent still lives, and exec; returns never."""
    parent, death_signal, uid, command = int(argv[0]), int(argv[1]), argv[2], argv[3:]
    try:
        if uid != "-":
            _become(int(uid))
        # After the change of user, which clears the death signal.
        _prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            sys.exit("the process that started this one has ended")
        os.execv(command[0], command)  # noqa: S606 - to exec is this program's purpose
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error}")


def _become(uid: int) -> None:
    _prctl(_PR_SET_KEEPCAPS, 1)
    # Else access(2), by which initdb looks for its own program, leaves the kept right out of account. Where
    # root may not set it, programs below a closed folder are not found, and the error says so.
    with suppress(PermissionError):
        _prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    _keep_only(_CAP_DAC_OVERRIDE)


def _keep_only(capability: int) -> None:
    """Give up every capability but one, and let that one survive exec."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    kept = 1 << capability
    # effective, permitted, inheritable; then the same for capabilities from 32 on
    sets = (ctypes.c_uint32 * 6)(kept, kept, kept, 0, 0, 0)
    _checked(_libc().capset(header, sets), "capset")
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(_libc().prctl(option, *padded), f"prctl {option}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
