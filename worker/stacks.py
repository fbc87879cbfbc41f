"""Where each rank stands: asked of it by a signal, and read from the file that faulthandler leaves."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared.domain.events import PROGRESS_FILE
from shared.domain.run_signs import PULSE_PREFIX, STACKS_PREFIX
from worker.processes import Entry, descendants
from worker.run_files import end_of

_NAME = re.compile(rf"{STACKS_PREFIX}(\d+)-(\d+)\.txt\Z")
_FRAME = re.compile(r'  File "(?P<path>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)')
_MOST_BYTES = 4_000
_WAIT_S = 3.0
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True)
class Standing:
    """Where a rank stands. `dump` is every thread's stack, the main one's last; empty: it did not answer."""

    rank: int
    is_stopped: bool
    dump: str

    @property
    def frame(self) -> str | None:
        """The innermost frame of the main thread, in words."""
        main = self.dump.rpartition("hread 0x")[2]
        found = _FRAME.search(main)
        return f"{found['function']}, {Path(found['path']).name}:{found['line']}" if found else None

    @property
    def waits_in_torch(self) -> bool:
        """Whether it stands in torch's own code, as a rank that waits for its peers does."""
        found = _FRAME.search(self.dump.rpartition("hread 0x")[2])
        return found is not None and "/torch/" in found["path"]


def signs_of_life(run: Path) -> Hashable:
    """Changes whenever some rank gets further: its pulse, or a line of progress."""
    signs = []
    with os.scandir(run) as entries:
        for entry in entries:
            if entry.name.startswith(PULSE_PREFIX) or entry.name == PROGRESS_FILE:
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    signs.append((entry.name, found.st_mtime_ns, found.st_size))
    return tuple(sorted(signs))


def where_ranks_stand(run: Path, root: int) -> list[Standing]:
    """Asks every rank below process `root`, and waits a moment for the answers."""
    asked = {rank: entry for rank, entry in _ranks(run, root).items() if _ask(entry.pid)}
    _wait_for_answers(run, asked)
    return [
        Standing(rank, entry.state in "Tt", _dump(run, rank, entry.pid))
        for rank, entry in sorted(asked.items())
    ]


def _ranks(run: Path, root: int) -> dict[int, Entry]:
    """Those that can answer: their file says so. Only processes of this run are ever asked."""
    below = {entry.pid: entry for entry in descendants(root) if entry.state not in "ZX"}
    found = (_NAME.match(path.name) for path in run.glob(f"{STACKS_PREFIX}*"))
    named = {int(match[1]): int(match[2]) for match in found if match}
    return {rank: below[pid] for rank, pid in named.items() if pid in below}


def _ask(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGUSR1)
    except ProcessLookupError:
        return False
    return True


def _wait_for_answers(run: Path, asked: Mapping[int, Entry]) -> None:
    until, seen = time.monotonic() + _WAIT_S, None
    while time.monotonic() < until:
        now = [_dump(run, rank, entry.pid) for rank, entry in asked.items()]
        if now == seen and all(now):
            return
        seen = now
        time.sleep(_LOOK_AGAIN_S)


def _dump(run: Path, rank: int, pid: int) -> str:
    return end_of(run, f"{STACKS_PREFIX}{rank}-{pid}.txt", _MOST_BYTES).decode(errors="replace")
