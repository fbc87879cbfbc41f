"""From a seed to faults: when, what, and a number that chooses the target. Pure; the same on every machine.

Times are seconds at default lease settings (hold after 40, lease 60, an offer made anew after 15); the
harness multiplies all of them by the time scale.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

# Processes that are killed and stopped, from the outside in.
SERVICES = ("api", "scheduler")
LEVELS = ("worker", "celery", "pool", "launcher", "agent", "rank", "loader")
# Not in plans: while a whole host is stopped past its lease, the promise says less.
HOST = "host"
SERVERS = ("postgres", "redis", "store")

SHORT_S, HELD_S, LOST_S = 10.0, 50.0, 90.0


@dataclass(frozen=True)
class Kind:
    """A sort of fault. `what` is one of the injections; `on` is a level, a server or nothing."""

    what: str
    on: str = ""
    for_s: float = 0.0

    @property
    def name(self) -> str:
        """As tables show it."""
        lasting = {SHORT_S: "short", HELD_S: "past hold", LOST_S: "past lease"}.get(self.for_s, "")
        return " ".join(filter(None, [self.what, self.on, lasting]))


@dataclass(frozen=True)
class Fault:
    """One fault of a plan: `at` counts from the first, `pick` in [0, 1) chooses among what is there then."""

    number: int
    at: float
    kind: Kind
    pick: float

    def __str__(self) -> str:
        return f"{self.number:3}  {self.at:7.1f} s  {self.kind.name:<28} pick {self.pick:.3f}"


KILLS = [Kind("kill", level) for level in (*SERVICES, *LEVELS)]
# A stopped launcher can hold nobody: only for less than lies between holding and losing, see reliability.md.
STOPS = [
    Kind("stop", level, for_s)
    for level in (*SERVICES, *LEVELS)
    for for_s in ((SHORT_S,) if level == "launcher" else (SHORT_S, HELD_S, LOST_S))
]
OF_SERVERS = [
    Kind("flush", "redis"),
    Kind("kill", "redis"),
    Kind("restore old", "redis"),
    Kind("restart", "postgres", 10.0),
    Kind("restart", "postgres", 90.0),
    Kind("kill", "postgres"),
]
OF_THE_NETWORK = [
    Kind(what, server, for_s)
    for what in ("cut one node from", "cut all from", "black-hole one node from", "black-hole all from")
    for server in SERVERS
    for for_s in (SHORT_S, LOST_S)
]
OTHERS = [Kind("fill disk", "", SHORT_S), Kind("deliver 100 times", "")]

_GROUPS: Mapping[str, Sequence[Kind]] = {
    "kills": KILLS,
    "stops": STOPS,
    "servers": OF_SERVERS,
    "network": OF_THE_NETWORK,
    "others": OTHERS,
}
_ROUND = ("kills", "stops", "kills", "servers", "network", "kills", "others", "stops", "network", "kills")


def make_plan(seed: int, n_faults: int, *, every_s: float = 40.0) -> list[Fault]:
    """`n_faults` faults, `every_s` apart on average; each kind of a group once before any a second time."""
    draw = random.Random(seed)
    decks = {name: _shuffled_for_ever(kinds, draw) for name, kinds in _GROUPS.items()}
    faults, at = [], 0.0
    for number, group in enumerate(islice(cycle(_ROUND), n_faults), start=1):
        faults.append(Fault(number, round(at, 1), next(decks[group]), round(draw.random(), 3)))
        at += draw.uniform(0.5, 1.5) * every_s
    return faults


def _shuffled_for_ever(kinds: Sequence[Kind], draw: random.Random) -> Iterator[Kind]:
    while True:
        yield from draw.sample(kinds, len(kinds))
