"""A real stack for tests: `thaw up` on a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import psutil

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 120
STOPS_WITHIN_S = 60


@dataclass(frozen=True)
class Stack:
    """Where the stack answers, the key to it, its folder, and the process that started all others."""

    url: str
    api_key: str
    data_dir: Path
    process: psutil.Process

    def environment(self, **more: str) -> dict[str, str]:
        """What the `thaw` command is told."""
        return {**os.environ, "THAW_URL": self.url, "THAW_API_KEY": self.api_key, **more}


@contextmanager
def running_stack(data_dir: Path, *, slots: int = 2, time_scale: float = 1.0) -> Iterator[Stack]:
    """One worker on a free port; leases shortened by `time_scale`. All is stopped at the end."""
    options = ["--data-dir", str(data_dir), "--port", "0", "--workers", "1", "--slots", str(slots)]
    log = data_dir.with_name(f"{data_dir.name}-up.log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "thaw", "up", *options],
            cwd=ROOT,
            env={**os.environ, "THAW_TIME_SCALE": str(time_scale)},
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
        )
    try:
        url = url_when_ready(process)
        assert url, f"`thaw up` did not come up:\n{log.read_text(errors='replace')[-4000:]}"
        key = (data_dir / "admin-key").read_text(encoding="utf-8").strip()
        yield Stack(url, key, data_dir, psutil.Process(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(STOPS_WITHIN_S)
        finally:
            process.kill()


def url_when_ready(process: subprocess.Popen[str]) -> str | None:
    """The address in the line `ready URL`; None when it ends, or takes too long, without one."""
    lines: Queue[str | None] = Queue()
    Thread(target=read_lines, args=(process, lines), daemon=True).start()
    try:
        line = lines.get(timeout=READY_WITHIN_S)
    except Empty:
        return None
    return line.removeprefix("ready ").strip() if line else None


def read_lines(process: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)
