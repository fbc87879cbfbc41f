"""The launcher as the supervisor sees it: started, watched, and ended with everything below it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.launch import TRAINER_MODULE, launcher_environment
from worker.processes import descendants, kill_all

_LAUNCHER = (sys.executable, "-m", "worker.launcher")
_TERMINATE_WAIT_S = 75.0


@contextmanager
def launched(run: Path, module: str = TRAINER_MODULE) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher on the run's folder, bound to this process. At the end it is gone, and all that it started.

    Each rank runs `module`.

    Must be entered in the main thread of a child subreaper: the kernel watches the thread that starts the
    launcher, and what a killed launcher leaves becomes this process's to kill.
    """
    before = {entry.pid for entry in descendants(os.getpid())}
    launcher = subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
        [*_LAUNCHER, str(run), "--parent", str(os.getpid()), "--module", module],
        env=launcher_environment(os.environ),
        cwd=run,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is the worker's, which lets the trainer leave
    )
    try:
        yield launcher
    finally:
        _end(launcher)
        kill_all(os.getpid(), keep=before)


def _end(launcher: subprocess.Popen[bytes]) -> None:
    launcher.terminate()
    try:
        launcher.wait(_TERMINATE_WAIT_S)
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()
