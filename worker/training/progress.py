"""Tells how a run goes: progress.jsonl for programs, standard output for people. Only rank 0 speaks."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from shared.domain.events import PROGRESS_FILE, NoteLine, PhaseLine, ProgressLine, RunPhase
from worker.training.waiting_lines import WaitingLines


class Progress:
    """Writes a line at a time, and keeps the time that each phase took."""

    def __init__(self, folder: Path, *, speaks: bool) -> None:
        self._file = WaitingLines(folder / PROGRESS_FILE) if speaks else None
        self._phase: RunPhase | None = None
        self._since = time.monotonic()
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, line: ProgressLine) -> None:
        if self._file is not None:
            self._file.write(line.model_dump_json().encode() + b"\n")

    def say(self, text: str) -> None:
        """A line for logs.txt."""
        if self._file is not None:
            sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            sys.stdout.flush()

    def enter(self, phase: RunPhase) -> None:
        self.count_time()
        self._phase = phase
        self.write(PhaseLine(phase=phase, time=time.time()))
        self.say(f"-- {phase}")

    def count_time(self) -> None:
        """Adds the time since the last call to the phase that the run is in."""
        now = time.monotonic()
        if self._phase is not None:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._since = now

    def note(
        self,
        code: str,
        message: str,
        data: Mapping[str, Any] | None = None,
        level: Literal["info", "warn", "error"] = "info",
    ) -> None:
        self.write(NoteLine(time=time.time(), level=level, code=code, message=message, data=dict(data or {})))
        self.say(message if level == "info" else f"{level}: {message}")
