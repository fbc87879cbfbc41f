"""Starts again what has died, as an init would, and no more: what a dead part leaves is not its matter."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from devstack.processes import Child, Part

_LOOK_AGAIN_S = 0.05
_PAUSE_S = 0.5


@dataclass
class _Kept:
    part: Part
    child: Child | None
    start_at: float = 0.0


class Keeper:
    """Keeps parts alive while it is looked to. For the main thread: children are bound to its life."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kept = [one.child for one in reversed(self._kept.values()) if one.child]
        self._kept.clear()
        for child in kept:
            child.stop()

    def start(self, *parts: Part) -> None:
        """Start these side by side; returns when all are ready."""
        for part in parts:
            self._kept[part.name] = _Kept(part, Child(part))
        for part in parts:
            child = self._kept[part.name].child
            assert child is not None
            child.wait_ready()

    def look(self) -> None:
        """Notice what has died, and start it again a moment later."""
        now = time.monotonic()
        for kept in self._kept.values():
            if kept.child is not None and kept.child.exit_status() is not None:
                kept.child, kept.start_at = None, now + _PAUSE_S
            elif kept.child is None and now >= kept.start_at:
                kept.child = Child(kept.part)

    def pid(self, name: str) -> int | None:
        """The part's process id; None while it is down."""
        child = self._kept[name].child
        return None if child is None or child.exit_status() is not None else child.pid

    def stop(self, name: str, away_s: float) -> None:
        """Stop a part in order; it is started again after `away_s` seconds."""
        kept = self._kept[name]
        if kept.child is not None:
            kept.child.stop()
        kept.child, kept.start_at = None, time.monotonic() + away_s

    def kill(self, name: str, away_s: float) -> None:
        """kill -9 of a part's first process alone."""
        kept = self._kept[name]
        if kept.child is not None and kept.child.exit_status() is None:
            os.kill(kept.child.pid, signal.SIGKILL)
            while kept.child.exit_status() is None:
                time.sleep(_LOOK_AGAIN_S)
        kept.child, kept.start_at = None, time.monotonic() + away_s

    def wait(self, seconds: float) -> None:
        """Keep everything alive for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.look()
            time.sleep(_LOOK_AGAIN_S)
