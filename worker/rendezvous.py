"""Where the nodes of a gang meet: the port of its first node, and the interface that ranks talk over."""

from __future__ import annotations

import errno
import socket
import time
from contextlib import suppress

import psutil

_LOOK_AGAIN_S = 0.1


def is_taken(port: int, within_s: float) -> bool:
    """Whether somebody else listens on `port` of this node, and still does after `within_s` seconds."""
    until = time.monotonic() + within_s
    while not _can_be_had(port):
        if time.monotonic() > until:
            return True
        time.sleep(_LOOK_AGAIN_S)
    return False


def interface_of(host: str) -> str | None:
    """The network interface of this node that has the address `host`; None where none has it.

    gloo takes the one that the host's own name leads to: often the loopback, where no peer reaches it.
    """
    addresses = addresses_of(host)
    for name, of_interface in psutil.net_if_addrs().items():
        if addresses & {one.address.partition("%")[0] for one in of_interface}:
            return name
    return None


def addresses_of(host: str) -> set[str]:
    """All addresses that a name leads to; empty where nobody knows it here, or can say so now."""
    with suppress(OSError):
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    return set()


def _can_be_had(port: int) -> bool:
    with socket.socket() as probe:
        # As the store does: what a connection that is over has left does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
