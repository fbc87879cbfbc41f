"""A line to a real server that can be made to swallow what is sent: it stays open and nothing comes back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Line:
    """Passes on between a TCP port here and a server's Unix socket."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._swallowed: set[socket.socket] = set()
        self._swallows_all = False
        self.n_swallowed = 0
        """Bytes so far."""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def swallow_those_open(self) -> None:
        """Nothing passes any more on what is connected now; who connects anew is served."""
        with self._lock:
            self._swallowed.update(self._ends)

    def swallow_all(self, swallows: bool = True) -> None:
        """The same for everybody, until it is called with False; what was swallowed is lost for good."""
        self._swallows_all = swallows
        if swallows:
            self.swallow_those_open()

    def serve(self) -> None:
        """Accept until closed."""
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._server))
            with self._lock:
                self._ends += [near, far]
                if self._swallows_all:
                    self._swallowed |= {near, far}
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def close(self) -> None:
        """Cut everything."""
        # Shut down first: to close alone does not wake a thread that waits in accept.
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if source in self._swallowed:
                    self.n_swallowed += len(data)
                else:
                    target.sendall(data)
            if source not in self._swallowed:
                target.shutdown(socket.SHUT_RDWR)


@contextmanager
def line_to(server: Path) -> Iterator[Line]:
    """A line that serves until the block ends."""
    line = Line(server)
    threading.Thread(target=line.serve, daemon=True).start()
    try:
        yield line
    finally:
        line.close()
