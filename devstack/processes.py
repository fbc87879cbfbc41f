"""One part of the stack as a child process: start, ask whether it is ready, stop, leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from devstack.identity import OURSELVES, Identity

_LOOK_AGAIN_S = 0.02
_KILL_WAIT_S = 10.0


class PartFailed(RuntimeError):
    """A part ended, or did not get ready in time; the message holds the end of its log."""

    @classmethod
    def of(cls, part: Part, what: str) -> PartFailed:
        """The error of `part`, with `what` became of it."""
        return cls(f"{part.name} {what}{_end_of(part.log)}")


def _always() -> bool:
    return True


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Part:
    """What to run and how. `env` is the whole environment; output goes to the file `log`."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    folder: Path
    ready: Callable[[], bool] = field(default=_always)
    before_start: Callable[[], None] = field(default=_nothing)
    ready_within_s: float = 120.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL
    identity: Identity = OURSELVES


class Child:
    """A running part, in a session and process group of its own, bound to the life of this process.

    Must be made in the main thread: the kernel watches the thread that starts the child.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self.started = time.monotonic()
        part.before_start()
        part.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with part.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the stack's own commands
                part.identity.command(part.argv, part.death_signal),
                env=dict(part.env),
                cwd=part.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id of the part, which is also its process group."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while it runs; minus the signal's number where a signal ended it."""
        return self._process.poll()

    def is_ready(self) -> bool:
        """Whether it answers. Raises PartFailed when it has ended or its time to get ready is over."""
        status = self.exit_status()
        if status is not None:
            raise PartFailed.of(self.part, f"ended with status {status}")
        if self.part.ready():
            return True
        if time.monotonic() - self.started > self.part.ready_within_s:
            raise PartFailed.of(self.part, f"was not ready after {self.part.ready_within_s:g} s")
        return False

    def wait_ready(self) -> None:
        """Return when it answers. Raises PartFailed as `is_ready` does."""
        while not self.is_ready():
            time.sleep(_LOOK_AGAIN_S)

    def ask_to_stop(self) -> None:
        """Send the part's own stop signal and return at once."""
        if self.exit_status() is None:
            self._process.send_signal(self.part.stop_signal)

    def stop(self) -> None:
        """End the part and whatever is left of its process group: politely, then by force."""
        self.ask_to_stop()
        try:
            self._process.wait(self.part.stop_within_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._kill_group()

    def kill(self) -> None:
        """End the part and its process group by force, and wait for it."""
        self._kill_group()
        self._process.wait(_KILL_WAIT_S)

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # the group is empty, which is what was wanted


@contextmanager
def running(part: Part) -> Iterator[Child]:
    """Start the part, wait until it is ready, and stop it at the end."""
    child = Child(part)
    try:
        child.wait_ready()
        yield child
    finally:
        child.stop()


def _end_of(log: Path, most: int = 2000) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - most))
        text = file.read().decode(errors="replace").strip()
    return f"; the end of {log}:\n{text}" if text else f"; {log} is empty"
