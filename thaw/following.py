"""A job's events as they happen: each once, in order, whatever the connection does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from thaw.errors import ServerRefused, ServerUnreachable
from thaw.shapes import Event, Job
from thaw.sse import Message, messages
from thaw.transport import Transport

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
# A server that starts again, or a proxy before it, answers so.
_PASSING = frozenset({429, 502, 503, 504})


@dataclass
class Follower:
    """Follows one job. `seq` is the last event handed out; a lost server is waited for for `patience_s`."""

    transport: Transport
    job_path: str
    seq: int = 0
    patience_s: float = 60.0
    _heard_at: float = field(default_factory=time.monotonic)

    def events(self) -> Iterator[Event]:
        """Every event after `seq`, until the job is over and no more can come.

        Raises ServerUnreachable when the server stays away for longer than `patience_s`, and ServerRefused
        when it does not let the job be seen.
        """
        wait_s = _FIRST_WAIT_S
        while True:
            before = self.seq
            try:
                yield from self._stream()
                if self.seq == before and self._is_the_last():
                    return
            except (ServerUnreachable, ServerRefused) as error:
                self._bear(error)
            if self.seq > before:
                wait_s = _FIRST_WAIT_S
                continue
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _stream(self) -> Iterator[Event]:
        """The events of one connection. What was seen is passed over; one that was left out ends it."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(self.seq)}
        with self.transport.stream(f"{self.job_path}/events", headers=headers) as response:
            self._heard_at = time.monotonic()
            for message in messages(response.iter_raw()):
                self._heard_at = time.monotonic()
                event = read_event(message)
                if event.seq > self.seq + 1:
                    return
                if event.seq == self.seq + 1:
                    self.seq = event.seq
                    yield event

    def _is_the_last(self) -> bool:
        """Whether the job is over and `seq` its last event. A stream that ends may only have been cut."""
        job = Job.read(self.transport.get(self.job_path))
        return job.is_over and self.seq >= int(job.raw.get("n_events", self.seq))

    def _bear(self, error: ServerUnreachable | ServerRefused) -> None:
        if not passes(error):
            raise error
        if time.monotonic() - self._heard_at > self.patience_s:
            raise error


def passes(error: ServerUnreachable | ServerRefused) -> bool:
    """Whether the same request may well be answered a little later."""
    return isinstance(error, ServerUnreachable) or error.status in _PASSING


def read_event(message: Message) -> Event:
    """The event that a message of the stream carries. Raises ServerRefused when it is none."""
    try:
        raw: Mapping[str, Any] = json.loads(message.data)
        return Event.read(int(message.id or raw["seq"]), raw)
    except (ValueError, KeyError, TypeError) as error:
        raise ServerRefused(f"an event that cannot be read: {message.data[:200]}", None, None, 200) from error
