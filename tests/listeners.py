"""Ports of this host that answer as another's would: a program listens, none does, or all is dropped."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LOOPBACK = "127.0.0.1"


@contextmanager
def listening(backlog: int = 128) -> Iterator[int]:
    """A program listens and never accepts, as one that is stopped."""
    with socket.create_server((LOOPBACK, 0), backlog=backlog) as server:
        yield int(server.getsockname()[1])


@contextmanager
def refusing() -> Iterator[int]:
    """Nobody listens."""
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        yield int(bound.getsockname()[1])


@contextmanager
def swallowing() -> Iterator[int]:
    """What arrives is dropped: those who wait to be accepted are as many as the kernel lets wait."""
    with listening(backlog=0) as port, ExitStack() as stack:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((LOOPBACK, port))
        yield port
