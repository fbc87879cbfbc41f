"""Small disks for the nodes, that can be filled: tmpfs in mounts of the run's own, where root runs it.

Elsewhere nodes share the machine's disk, which is not filled: that fault finds nothing to hit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARK = "CHAOS_OWN_MOUNTS"
_SIZE = "64m"


def in_own_mounts() -> None:
    """Start this program again where its mounts are its own and end with it, if that can be."""
    if os.environ.get(_MARK) or os.geteuid() != 0:
        return
    command = ["unshare", "--mount", "--propagation", "private", "--"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[_MARK] = "1"
        os.execvp(command[0], [*command, sys.executable, "-m", "harness", *sys.argv[1:]])


@contextmanager
def small_disks(folders: list[Path]) -> Iterator[None]:
    """A disk of its own on each of the folders, which are made, where that can be."""
    for folder in folders:
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.environ.get(_MARK):
            words = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0700", "thaw-chaos", str(folder)]
            subprocess.run(words, check=True)
    try:
        yield
    finally:
        for folder in folders:
            if os.path.ismount(folder):
                subprocess.run(["umount", "--lazy", str(folder)], check=True)
