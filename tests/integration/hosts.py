"""Two hosts on one machine: network namespaces with a cable between them, and no way out."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_CABLE = "cable"
_NO_CARD = "02:00:00:00:00:01"


class NotPermitted(Exception):
    """This machine lets nobody make network namespaces."""


@dataclass(frozen=True)
class Host:
    """A namespace with a loopback of its own, and the end of the cable that has `address`."""

    name: str
    address: str

    @property
    def within(self) -> list[str]:
        """The command that runs another one there."""
        return ["ip", "netns", "exec", self.name]

    def received_bytes(self) -> int:
        """Over the cable, so far."""
        counted = f"/sys/class/net/{_CABLE}/statistics/rx_bytes"
        return int(subprocess.check_output([*self.within, "cat", counted]))


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Raises NotPermitted."""
    mark = uuid.uuid4().hex[:8]
    first, second = Host(f"thaw-{mark}-0", "10.219.7.1"), Host(f"thaw-{mark}-1", "10.219.7.2")
    try:
        _connect(first, second)
        yield first, second
    finally:
        for host in (first, second):  # the cable goes with its ends
            subprocess.run(["ip", "netns", "del", host.name], check=False, capture_output=True)


@contextmanager
def cut(first: Host, second: Host) -> Iterator[None]:
    """What either sends to the other is dropped, and neither is told: it goes to a card that is not there."""
    for host, other in ((first, second), (second, first)):
        entry = (other.address, "lladdr", _NO_CARD, "dev", _CABLE, "nud", "permanent")
        _ip("-n", host.name, "neigh", "replace", *entry)
    try:
        yield
    finally:
        for host, other in ((first, second), (second, first)):
            _ip("-n", host.name, "neigh", "del", other.address, "dev", _CABLE)


def _connect(first: Host, second: Host) -> None:
    for host in (first, second):
        _ip("netns", "add", host.name)
    ends = ("name", _CABLE, "netns", first.name, "type", "veth", "peer", "name", _CABLE, "netns", second.name)
    _ip("link", "add", *ends)
    for host in (first, second):
        # Without addresses of IPv6, so that there is one way to the other end.
        _ip("-n", host.name, "link", "set", _CABLE, "addrgenmode", "none")
        _ip("-n", host.name, "addr", "add", f"{host.address}/30", "dev", _CABLE)
        for interface in ("lo", _CABLE):
            _ip("-n", host.name, "link", "set", interface, "up")


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except FileNotFoundError as missing:
        raise NotPermitted("there is no `ip` here") from missing
    except subprocess.CalledProcessError as refused:
        raise NotPermitted(f"`ip {' '.join(words)}`: {refused.stderr.strip()}") from refused
