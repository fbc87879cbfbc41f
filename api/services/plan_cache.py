"""What was planned before, kept in this process as text, so that nobody changes a plan that others get."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock

from shared.domain.device import Device
from shared.domain.memory import Needs

MOST_ENTRIES = 512
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class KnownPlan:
    """`text` is a JSON object: the freeze plan and all figures that do not depend on the nodes there are.

    `needs` are what decides whether a node fits; they must not be changed.
    """

    text: bytes
    needs: Mapping[Device, tuple[Needs, ...]]


class PlanCache:
    """The plans that were asked for last, up to a number and up to their bytes in all. Safe among threads."""

    def __init__(self, most_entries: int = MOST_ENTRIES, most_bytes: int = MOST_BYTES) -> None:
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._bytes = 0
        self._plans: OrderedDict[str, KnownPlan] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str, make: Callable[[], KnownPlan]) -> KnownPlan:
        """The plan of `key`, made where it is not known. What `make` raises is raised and not kept."""
        with self._lock:
            known = self._plans.get(key)
            if known is not None:
                self._plans.move_to_end(key)
                return known
        made = make()
        with self._lock:
            self._keep(key, made)
        return made

    def _keep(self, key: str, made: KnownPlan) -> None:
        replaced = self._plans.pop(key, None)  # two requests may have made it at the same time
        self._plans[key] = made
        self._bytes += _weight(key, made) - (_weight(key, replaced) if replaced else 0)
        while self._plans and (len(self._plans) > self._most_entries or self._bytes > self._most_bytes):
            oldest, dropped = self._plans.popitem(last=False)
            self._bytes -= _weight(oldest, dropped)


def _weight(key: str, plan: KnownPlan) -> int:
    return len(key) + len(plan.text)
