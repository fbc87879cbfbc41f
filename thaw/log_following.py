"""A job's log as it grows: each byte once, whatever the connection does, and every try's from its start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from thaw.errors import ServerRefused, ServerUnreachable
from thaw.following import passes
from thaw.shapes import Job
from thaw.transport import Transport


@dataclass
class LogFollower:
    """Follows the log of one job. A lost server is waited for for `patience_s`."""

    transport: Transport
    job_path: str
    look_every_s: float = 1.0
    patience_s: float = 60.0
    _offset: int = 0
    _attempt: str | None = None
    _heard_at: float = field(default_factory=time.monotonic)

    def pieces(self) -> Iterator[bytes]:
        """What is written, until the job is over. Raises as `Follower.events` does."""
        while True:
            try:
                # Asked before the log is read, so that the end of the log is not missed.
                is_over = Job.read(self.transport.get(self.job_path)).is_over
                yield from self._new()
                self._heard_at = time.monotonic()
                if is_over:
                    return
            except (ServerUnreachable, ServerRefused) as error:
                if not passes(error) or time.monotonic() - self._heard_at > self.patience_s:
                    raise
            time.sleep(self.look_every_s)

    def _new(self) -> Iterator[bytes]:
        """What was written since; of another try, all of it."""
        while True:
            with self.transport.stream(f"{self.job_path}/logs", offset=self._offset) as response:
                attempt = response.headers.get("X-Attempt")
                if attempt == self._attempt or self._offset == 0:
                    self._attempt = attempt
                    for piece in response.iter_bytes():
                        self._offset += len(piece)
                        yield piece
                    return
            self._offset = 0
