"""A cluster's life as events: jobs come, are placed, end, or hand back what they borrowed and wait again.

Between two passes only events happen; a pass is made every `pass_s` seconds if anything has changed, as the
scheduler's would be: `decide` is given the nodes, the queue, what runs and for how long it has, the quotas
and the decayed past.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush

from _cluster_load import Host, Job
from _cluster_packing import first_fit_decreasing
from _cluster_policies import Policy

from shared.domain.cluster import Node, Placement, Running, Waiting, expected_remaining_s
from shared.domain.fairshare import Decision, decide
from shared.domain.job import YIELD_S
from shared.domain.standing import held_on_average

LEAVING_S = 60.0
"""From being asked to leave to free slots: the checkpoint of a job that hands back what it borrowed."""


@dataclass(frozen=True)
class Clock:
    """Seconds: from one pass to the next, of the usage's half-life, and until when all of it goes on."""

    pass_s: float
    half_life_s: float
    until_s: float


@dataclass(frozen=True)
class Hold:
    """Slots that a job held from `since` to `until`."""

    job_id: str
    team: str
    accelerator: str
    slots: int
    since: float
    until: float


@dataclass(frozen=True)
class Pass:
    """One pass and what came of it, in GPUs. `could_place`: what first-fit-decreasing places there."""

    at: float
    took_ms: float
    placed: int
    could_place: int
    n_waiting: int
    backlogged: frozenset[str]
    """The teams that have jobs waiting after it."""


@dataclass
class Record:
    """All that figures are made from."""

    holds: list[Hold] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    first_placed_at: dict[str, float] = field(default_factory=dict)
    n_preempted: int = 0


@dataclass
class _Run:
    """A job on its slots. `leaves_at`: when it hands them back, having been asked at `asked_at`."""

    job: Job
    team: str
    placement: Placement
    accelerator: str
    since: float
    started_at: float
    ends_at: float
    asked_at: float | None = None
    leaves_at: float | None = None

    @property
    def frees_at(self) -> float:
        return self.ends_at if self.leaves_at is None else min(self.ends_at, self.leaves_at)

    def seen_at(self, now: float) -> Running:
        return Running(
            self.job.id,
            self.team,
            tuple((part.node_id, len(part.slots)) for part in self.placement.parts),
            self.accelerator,
            self.started_at,
            self.asked_at is not None,
            expected_remaining_s(now - self.since, None),
        )


class Past:
    """What each team has held of each type on average, decayed: as the usage rows of a database add up."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._held: Counter[tuple[str, str]] = Counter()
        self._average: dict[tuple[str, str], float] = {}
        self._since: dict[tuple[str, str], float] = {}

    def change(self, key: tuple[str, str], slots: int, now: float) -> None:
        """The team holds so many more, or less, from now on."""
        self._settle(key, now)
        self._held[key] += slots

    def at(self, now: float) -> dict[tuple[str, str], float]:
        for key in self._average:
            self._settle(key, now)
        return dict(self._average)

    def _settle(self, key: tuple[str, str], now: float) -> None:
        passed_s = now - self._since.get(key, now)
        faded = self._average.get(key, 0.0) * 0.5 ** (passed_s / self._half_life_s)
        self._average[key] = faded + held_on_average(self._held[key], passed_s, 0.0, self._half_life_s)
        self._since[key] = now


class Simulation:
    """One cluster under one policy."""

    def __init__(self, hosts: Sequence[Host], jobs: Sequence[Job], policy: Policy, clock: Clock) -> None:
        self._policy, self._clock, self._now = policy, clock, 0.0
        self._jobs = {job.id: job for job in jobs}
        self._left_s = {job.id: job.lasts_s for job in jobs}
        self._nodes = {
            host.id: Node(host.id, host.accelerator, host.slots, tuple(range(host.slots))) for host in hosts
        }
        self._arrivals = [(job.submitted_at, job.id) for job in jobs]
        heapify(self._arrivals)
        self._ends: list[tuple[float, str]] = []
        self._queue: dict[str, Waiting] = {}
        self._runs: dict[str, _Run] = {}
        self._past = Past(clock.half_life_s)
        self.record = Record()

    def run(self) -> Record:
        """Until the clock says so; what runs then is taken to have held its slots up to there."""
        while self._now < self._clock.until_s:
            if self._catch_up() and self._queue:
                self._pass()
            self._now += self._clock.pass_s
        self._now = self._clock.until_s
        self._catch_up()
        for run in self._runs.values():
            self._note_hold(run)
        return self.record

    def _catch_up(self) -> bool:
        """All events up to now, in their order. Returns whether there were any."""
        happened = False
        while due := self._next_due():
            happened = True
            at, id = heappop(due)
            if due is self._arrivals:
                self._queue[id] = self._policy.waiting(self._jobs[id], at)
            elif id in self._runs and self._runs[id].frees_at == at:
                self._free(id, at)
        return happened

    def _next_due(self) -> list[tuple[float, str]] | None:
        """The line of events whose first is the next one; None where none is due."""
        due = [line for line in (self._ends, self._arrivals) if line and line[0][0] <= self._now]
        return min(due, key=lambda line: line[0], default=None)

    def _free(self, id: str, at: float) -> None:
        """A job leaves its slots: it has ended, or it handed them back and waits again after a while."""
        run = self._runs.pop(id)
        for part in run.placement.parts:
            node = self._nodes[part.node_id]
            self._nodes[node.id] = replace(node, free_slots=tuple(sorted((*node.free_slots, *part.slots))))
        self._past.change((run.team, run.accelerator), -run.placement.n_slots, at)
        self._note_hold(run, at)
        if at < run.ends_at:
            assert run.asked_at is not None
            self._left_s[id] = run.ends_at - run.asked_at
            heappush(self._arrivals, (at + YIELD_S, id))

    def _pass(self) -> None:
        nodes, queue, running = list(self._nodes.values()), list(self._queue.values()), self._running()
        past = self._past.at(self._now) if self._policy.knows_teams else {}
        could_place = first_fit_decreasing(nodes, queue, running, self._policy.shares)
        began = time.perf_counter()
        decision = decide(nodes, queue, running=running, teams=self._policy.shares, past=past)
        took_ms = (time.perf_counter() - began) * 1000
        self._carry_out(decision)
        placed = sum(placement.n_slots for placement in decision.placements)
        backlogged = frozenset(self._jobs[id].team for id in self._queue)
        self.record.passes.append(
            Pass(self._now, took_ms, placed, could_place, len(queue), backlogged),
        )

    def _carry_out(self, decision: Decision) -> None:
        for asked in decision.preemptions:
            self._ask_back(self._runs[asked.job_id])
        for number, placement in enumerate(decision.placements):
            self._place(placement, number)

    def _ask_back(self, run: _Run) -> None:
        self.record.n_preempted += 1
        run.asked_at, run.leaves_at = self._now, self._now + LEAVING_S
        heappush(self._ends, (run.frees_at, run.job.id))

    def _place(self, placement: Placement, number: int) -> None:
        job = self._jobs[placement.job_id]
        for part in placement.parts:
            node, taken = self._nodes[part.node_id], set(part.slots)
            assert taken <= set(node.free_slots), "a slot is given once"
            left = tuple(slot for slot in node.free_slots if slot not in taken)
            self._nodes[node.id] = replace(node, free_slots=left)
        del self._queue[job.id]
        team = self._policy.team(job)
        # One after the other, also within a pass: that order tells which of a team's jobs are borrowed.
        started_at = self._now + number * 1e-6
        ends_at = self._now + self._left_s[job.id]
        accelerator = self._nodes[placement.parts[0].node_id].accelerator
        run = _Run(job, team, placement, accelerator, self._now, started_at, ends_at)
        self._runs[job.id] = run
        self._past.change((team, accelerator), placement.n_slots, self._now)
        self.record.first_placed_at.setdefault(job.id, self._now)
        heappush(self._ends, (run.ends_at, job.id))

    def _running(self) -> list[Running]:
        """What holds slots, each with the scheduler's own guess of how long it still runs."""
        return [run.seen_at(self._now) for run in self._runs.values()]

    def _note_hold(self, run: _Run, until: float | None = None) -> None:
        until = self._now if until is None else until
        self.record.holds.append(
            Hold(run.job.id, run.job.team, run.accelerator, run.placement.n_slots, run.since, until)
        )
