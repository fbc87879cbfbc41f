"""A whole stack of a test's own: `thaw up` on a folder, real in every part."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from conditions import wait_for

READY_WITHIN_S = 120
STOPS_WITHIN_S = 90


@dataclass(frozen=True)
class Stack:
    """Where the stack answers, the admin key, its folder, and the process of `thaw up`."""

    url: str
    api_key: str
    data_dir: Path
    process: psutil.Process


@contextmanager
def running_stack(data_dir: Path, *, workers: int = 1, slots: int = 2, **environment: str) -> Iterator[Stack]:
    """The stack on a free port, with workers of so many CPU slots each, stopped at the end."""
    log = data_dir / "up.log"
    nodes = ["--workers", str(workers), "--slots", str(slots)]
    options = ["--data-dir", str(data_dir), "--port", "0", *nodes]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "thaw", "up", *options],
            env=os.environ | environment,
            stdout=output,
            stderr=output,
        )
    try:
        url = wait_for(lambda: _url(process, log), READY_WITHIN_S, "the stack to be ready")
        key = (data_dir / "admin-key").read_text(encoding="utf-8").strip()
        yield Stack(url, key, data_dir, psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOPS_WITHIN_S)


def _url(process: subprocess.Popen[bytes], log: Path) -> str | None:
    text = log.read_text(encoding="utf-8")
    assert process.poll() is None, f"`thaw up` ended:\n{text}"
    return next(
        (line.removeprefix("ready ") for line in text.splitlines() if line.startswith("ready ")), None
    )
