"""Carries a plan out: each fault at its time, undone at its time, written down with what it hit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil
import redis
from harness.cluster import Cluster
from harness.injections import Injection, inject
from harness.plan import Fault
from kombu.exceptions import OperationalError as QueueAway
from sqlalchemy.exc import DBAPIError

GONE_WITHIN_S = 10.0
_ENDED_OR_STOPPED = (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
# What an injection itself may meet on a stack that other faults have hit.
_SPOILED_BY_ANOTHER = (redis.RedisError, QueueAway, DBAPIError)


def boottime() -> float:
    """Seconds of the clock by which the witnesses write."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Injected:
    """A fault of the plan, when it was done (boot time, seconds) and what it hit; None: nothing was there."""

    fault: Fault
    at: float
    injection: Injection | None
    until: float | None = None
    left: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        hit = self.injection.hit if self.injection else "not injected: there was nothing to hit"
        left = f"; STILL THERE after {GONE_WITHIN_S:g} s: {self.left}" if self.left else ""
        return f"{self.fault.number:3}  {self.fault.kind.name:<36} {hit}{left}"


class Injector:
    """Looked to often; never waits long. For the main thread, as the keeper."""

    def __init__(self, cluster: Cluster, plan: Sequence[Fault], scale: float) -> None:
        self.done: list[Injected] = []
        self._cluster = cluster
        self._scale = scale
        self._waiting = list(plan)
        self.began = boottime()
        self._open: list[Injected] = []
        self._dying: list[Injected] = []

    @property
    def is_over(self) -> bool:
        """Whether every fault was done, undone and followed up."""
        return not (self._waiting or self._open or self._dying)

    def look(self) -> None:
        """Do what is due now."""
        now = boottime()
        self._undo(now)
        self._follow_up(now)
        if self._waiting and now >= self.began + self._waiting[0].at * self._scale:
            self._do(self._waiting.pop(0))

    def give_up(self) -> None:
        """No more faults: there is nothing left to hit. What is going on still ends."""
        self._waiting.clear()

    def _do(self, fault: Fault) -> None:
        at = boottime()
        try:
            injection = inject(self._cluster, fault, self._scale)
        except _SPOILED_BY_ANOTHER:
            injection = None
        done = Injected(fault, at, injection)
        self.done.append(done)
        if injection and injection.undo:
            done.until = at + injection.for_s
            self._open.append(done)
        if injection and injection.ended:
            self._dying.append(done)

    def _undo(self, now: float) -> None:
        for done in [one for one in self._open if one.until is not None and now >= one.until]:
            assert done.injection is not None
            assert done.injection.undo is not None
            done.injection.undo()
            self._open.remove(done)

    def _follow_up(self, now: float) -> None:
        """What a killed process had below it must be gone in time."""
        for done in list(self._dying):
            assert done.injection is not None
            done.left = [one.pid for one in done.injection.ended if can_leave(one)]
            if not done.left or now - done.at > GONE_WITHIN_S:
                self._dying.remove(done)


def can_leave(process: psutil.Process) -> bool:
    """Whether it is there still and can leave: what is stopped cannot, nor the launcher of a held run."""
    try:
        if not process.is_running() or process.status() in _ENDED_OR_STOPPED:
            return False
        below = [child.status() for child in process.children(recursive=True)]
        return psutil.STATUS_STOPPED not in below or any(one not in _ENDED_OR_STOPPED for one in below)
    except psutil.NoSuchProcess:
        return False
