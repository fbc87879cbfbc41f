"""What waits for its upload: every shard, and of the checkpoints those that are still worth it."""

from __future__ import annotations

import threading
from collections import deque

from shared.domain.events import CheckpointLine, ShardLine


class UploadQueue:
    """In the order in which it came. Safe among threads.

    A store that is slower than the run writes checkpoints would fall behind for ever: a newer one takes the
    place of those that wait, but for the newest of the best ones, which no later one holds whole.
    """

    def __init__(self) -> None:
        self._lines: deque[CheckpointLine | ShardLine] = deque()
        self._changed = threading.Condition()

    def add(self, line: CheckpointLine | ShardLine) -> None:
        with self._changed:
            if isinstance(line, CheckpointLine):
                self._lines = deque(one for one in self._lines if not _is_overtaken(one, self._best(), line))
            self._lines.append(line)
            self._changed.notify()

    def next(self, timeout_s: float) -> CheckpointLine | ShardLine | None:
        """The next one, waited for up to `timeout_s`; None where there is none."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._lines, timeout_s):
                return None
            return self._lines.popleft()

    def is_empty(self) -> bool:
        with self._changed:
            return not self._lines

    def _best(self) -> CheckpointLine | None:
        """The newest of the best ones that wait."""
        best = (one for one in reversed(self._lines) if isinstance(one, CheckpointLine) and one.is_best)
        return next(best, None)


def _is_overtaken(
    one: CheckpointLine | ShardLine, best: CheckpointLine | None, newest: CheckpointLine
) -> bool:
    return isinstance(one, CheckpointLine) and (newest.is_best or one is not best)
