"""Keeps the parts of the stack alive, and stops them in the reverse of the order they were started in."""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Self

from devstack.processes import Child, Part, PartFailed

_LOOK_AGAIN_S = 0.05
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 60.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = logging.getLogger("devstack")


class Stopped(Exception):
    """A person or another program asked the stack to stop."""


@dataclass
class _Kept:
    """A part that is to stay alive: its child, and what is known of its falls."""

    part: Part
    child: Child | None
    falls: int = 0
    start_again_at: float = 0.0


class Supervisor:
    """Starts parts, starts them again when they die, and stops all of them on leaving the `with` block.

    SIGINT, SIGTERM and SIGHUP end whatever wait is going on with `Stopped`. For the main thread only.
    """

    def __init__(self) -> None:
        self._stages: list[list[_Kept]] = []
        self._stop_asked = False
        self._old_handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in _STOP_SIGNALS:
            self._old_handlers[number] = signal.signal(number, self._ask_to_stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            for number, handler in self._old_handlers.items():
                signal.signal(number, handler)

    def start(self, *parts: Part) -> None:
        """Start parts side by side and return when all are ready. They will be stopped together too.

        Raises PartFailed when one ends or is too slow before it was ever ready.
        """
        stage: list[_Kept] = []
        self._stages.append(stage)
        for part in parts:
            stage.append(_Kept(part, Child(part)))
        waiting = [kept.child for kept in stage if kept.child]
        while waiting:
            waiting = [child for child in waiting if not child.is_ready()]
            self._look_after(self._stages[:-1])
            self._pause()

    def run(self, part: Part) -> None:
        """Run a part to its end. Raises PartFailed when it ends with another status than 0, or too late."""
        child = Child(part)
        try:
            while (status := child.exit_status()) is None:
                if time.monotonic() - child.started > part.ready_within_s:
                    raise PartFailed.of(part, f"was not done after {part.ready_within_s:g} s")
                self._look_after(self._stages)
                self._pause()
        finally:
            child.stop()
        if status != 0:
            raise PartFailed.of(part, f"ended with status {status}")

    def watch(self) -> None:
        """Start parts again as they die, until asked to stop; then raises Stopped."""
        while True:
            self._look_after(self._stages)
            self._pause()

    def stop(self) -> None:
        """Stop everything that was started, the last stage first."""
        while self._stages:
            children = [kept.child for kept in self._stages.pop() if kept.child]
            for child in children:
                child.ask_to_stop()
            for child in children:
                child.stop()

    def pids(self) -> dict[str, int]:
        """The process id of every part that was started and has not been found dead, by name."""
        return {kept.part.name: kept.child.pid for stage in self._stages for kept in stage if kept.child}

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_asked = True

    def _pause(self) -> None:
        if self._stop_asked:
            raise Stopped
        time.sleep(_LOOK_AGAIN_S)

    def _look_after(self, stages: list[list[_Kept]]) -> None:
        for stage in stages:
            for kept in stage:
                if kept.child is None:
                    _start_again_in_time(kept)
                elif (status := kept.child.exit_status()) is not None:
                    _note_fall(kept, kept.child, status)


def _note_fall(kept: _Kept, child: Child, status: int) -> None:
    """Decide when to start again: each fall in a row doubles the pause."""
    child.stop()  # what is left of its process group
    now = time.monotonic()
    kept.falls = 1 if now - child.started > _STEADY_S else kept.falls + 1
    pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (kept.falls - 1))
    kept.child = None
    kept.start_again_at = now + pause
    name, where = kept.part.name, kept.part.log
    log.warning("%s ended with status %s; starting it again in %g s (see %s)", name, status, pause, where)


def _start_again_in_time(kept: _Kept) -> None:
    if time.monotonic() >= kept.start_again_at:
        kept.child = Child(kept.part)
        log.warning("%s started again", kept.part.name)
