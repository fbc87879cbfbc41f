"""Folders for Unix sockets, whose addresses may be no longer than 107 bytes."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

_LONGEST_ADDRESS = 107
_LONGEST_NAME = len("/.s.PGSQL.5432.lock")


def socket_folder(wanted: Path, owner: int | None = None) -> Path:
    """Make and return `wanted`, or a private folder of the temporary folder where `wanted` is too deep.

    The same `wanted` always gives the same folder, so addresses survive a restart. It is given to the
    user id `owner` where one is named.
    """
    if _fits(wanted):
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = wanted
    else:
        digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]
        folder = _private_folder(f"thaw-{os.getuid()}-{digest}", owner)
    if owner is not None:
        os.chown(folder, owner, owner)
    return folder


def _private_folder(name: str, owner: int | None) -> Path:
    for base in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - ours alone is checked below
        folder = base / name
        if _fits(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            _refuse_strangers(folder, {os.getuid(), owner})
            return folder
    raise RuntimeError(f"no folder short enough for a socket: {_LONGEST_ADDRESS} bytes is the most")


def _refuse_strangers(folder: Path, owners: set[int | None]) -> None:
    """The name can be guessed, so another user may have made the folder first."""
    status = folder.lstat()
    closed = stat.S_IMODE(status.st_mode) == 0o700
    if not (stat.S_ISDIR(status.st_mode) and status.st_uid in owners and closed):
        raise RuntimeError(
            f"{folder} must be a folder of this user with mode 0700; remove it and start again"
        )


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder)) + _LONGEST_NAME <= _LONGEST_ADDRESS
