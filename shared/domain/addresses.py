"""Which nodes other machines reach: those of a gang meet at the address that one of them gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address


@dataclass(frozen=True)
class Address:
    """What a node gives as its own. `machine`: whose loopback it has; None where nobody knows."""

    host: str
    machine: str | None


def out_of_reach(addresses: Mapping[str, Address]) -> set[str]:
    """The nodes that give their own loopback, where there are nodes of other machines too.

    On one machine the loopback is as good as any address, and nobody has to set one.
    """
    machines = {one.machine for one in addresses.values() if one.machine is not None}
    if len(machines) < 2:
        return set()
    return {node for node, one in addresses.items() if one.machine is not None and leads_to_oneself(one.host)}


@lru_cache(maxsize=10_000)
def leads_to_oneself(host: str) -> bool:
    """Whether each machine that connects to it reaches itself: 127.0.0.1, localhost, ::1, 0.0.0.0."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host.rstrip(".").lower().rpartition(".")[2] in ("localhost", "ip6-localhost")
    return address.is_loopback or address.is_unspecified
