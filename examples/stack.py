"""A Thaw stack of one's own for the length of a program: `thaw up` on a folder, and its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

READY_WITHIN_S = 180
STOPS_WITHIN_S = 90


@dataclass(frozen=True)
class Stack:
    """Where the stack answers, and the key to it."""

    url: str
    api_key: str


class StackFailed(RuntimeError):
    """The stack did not come up."""


@contextmanager
def running_stack(data_dir: Path, slots: int) -> Iterator[Stack]:
    """The stack with one worker on a free port, stopped at the end. Raises StackFailed if it stays down."""
    data_dir.mkdir(parents=True, exist_ok=True)
    options = ["--data-dir", str(data_dir), "--port", "0", "--workers", "1", "--slots", str(slots)]
    with (data_dir / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "thaw", "up", *options], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        url = _url_when_ready(process)
        if url is None:
            raise StackFailed(f"`thaw up` did not come up:\n{_end_of(data_dir / 'up.log')}")
        yield Stack(url, (data_dir / "admin-key").read_text(encoding="utf-8").strip())
    finally:
        _stop(process)


def _url_when_ready(process: subprocess.Popen[str]) -> str | None:
    """The address in the line that says `ready`; None when the process ends, or takes too long, before it."""
    lines: Queue[str] = Queue()
    Thread(target=_read_lines, args=(process, lines), daemon=True).start()
    try:
        line = lines.get(timeout=READY_WITHIN_S)
    except Empty:
        return None
    return line.removeprefix("ready ").strip() or None


def _read_lines(process: subprocess.Popen[str], lines: Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready "):
            lines.put(line)
    lines.put("")


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
