"""Many passes in a row: who preempts whom, and who waits for how long, while jobs come, end and go back."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.cluster import Node, Part, Preemption, Running, Waiting, expected_remaining_s
from shared.domain.fairshare import decide
from shared.domain.quota import NO_QUOTA, NO_SHARE, Quota, TeamShare

LEAVES_IN = 2.0
YIELDS = 3.0


@dataclass
class Cluster:
    """Nodes of eight slots under the scheduler, a pass a second.

    `knows`: whether it is told how long each job still runs; else no more than of jobs without a limit.
    """

    n_nodes: int
    teams: dict[str, TeamShare] = field(default_factory=dict)
    knows: bool = True
    now: float = 0.0
    queue: dict[str, Waiting] = field(default_factory=dict)
    lasts: dict[str, float] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    slots: dict[str, tuple[Part, ...]] = field(default_factory=dict)
    away: dict[str, tuple[float, Waiting]] = field(default_factory=dict)
    jobs: dict[str, Waiting] = field(default_factory=dict)
    preemptions: list[Preemption] = field(default_factory=list)
    started: dict[str, float] = field(default_factory=dict)
    n_done: int = 0
    """How many jobs have come to their end."""
    within: set[str] = field(default_factory=set)
    """Jobs that were placed within their team's nominal quota."""

    def submit(self, id: str, team: str, devices: int, lasts: float, *, nodes: int = 1) -> None:
        order = (0, self.now, id)
        self.jobs[id] = Waiting(id, order, devices, "any", nodes, team=team)
        self.queue[id], self.lasts[id] = self.jobs[id], lasts

    def tick(self) -> None:
        """One second: jobs end, those that were away wait again, and the scheduler decides."""
        self.now += 1
        self._end()
        for id, (back_at, job) in list(self.away.items()):
            if back_at <= self.now:
                del self.away[id]
                self.queue[id] = replace(job, order=(0, self.now, id))
        decision = decide(self._nodes(), list(self.queue.values()), running=self._told(), teams=self.teams)
        for asked in decision.preemptions:
            assert asked.job_id not in self.within
            self.preemptions.append(asked)
            self.running[asked.job_id] = replace(
                self.running[asked.job_id], is_leaving=True, remaining_s=LEAVES_IN
            )
        for placed in decision.placements:
            job = self.queue.pop(placed.job_id)
            self.within.discard(job.id)
            held = sum(one.slots for one in self.running.values() if one.team == job.team)
            quota = self.teams.get(job.team, NO_SHARE).quotas.get("cpu", NO_QUOTA)
            if held + placed.n_slots <= quota.nominal:
                self.within.add(job.id)
            self.slots[job.id] = placed.parts
            self.started.setdefault(job.id, self.now)
            self.running[job.id] = Running(
                id=job.id,
                team=job.team,
                held=tuple((part.node_id, len(part.slots)) for part in placed.parts),
                accelerator="cpu",
                started_at=self.now + len(self.running) / 1000,
                remaining_s=self.lasts[job.id],
            )

    def _end(self) -> None:
        for id, job in list(self.running.items()):
            self.running[id] = replace(job, remaining_s=job.remaining_s - 1)
            if self.running[id].remaining_s > 0:
                continue
            del self.running[id], self.slots[id]
            self.n_done += not job.is_leaving
            if job.is_leaving:
                self.away[id] = (self.now + YIELDS, self.jobs[id])

    def _told(self) -> list[Running]:
        if self.knows:
            return list(self.running.values())
        return [
            replace(job, remaining_s=expected_remaining_s(self.now - job.started_at, None))
            for job in self.running.values()
        ]

    def _nodes(self) -> list[Node]:
        free = {f"n{i}": set(range(8)) for i in range(self.n_nodes)}
        for part in (part for parts in self.slots.values() for part in parts):
            free[part.node_id] -= set(part.slots)
        return [Node(id, "cpu", 8, tuple(sorted(slots))) for id, slots in free.items()]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_what_was_placed_within_a_quota_is_never_preempted_and_preempting_ends(seed: int) -> None:
    chance = random.Random(seed)
    nominal = {team: chance.randint(0, 12) for team in "abc"}
    teams = {
        team: TeamShare(
            quotas={
                "cpu": Quota(slots, chance.choice((None, None, 8)), chance.choice((None, None, slots // 2)))
            }
        )
        for team, slots in nominal.items()
    }
    cluster = Cluster(n_nodes=3, teams=teams)
    for number in range(40):
        for _ in range(chance.choice((0, 0, 1, 4))):
            team, devices, nodes = (
                chance.choice("abc"),
                chance.choice((1, 1, 2, 4, 8)),
                chance.choice((1, 1, 2)),
            )
            lasts = chance.choice((5.0, 20.0, 10_000.0))
            cluster.submit(f"{team}{number}-{len(cluster.jobs)}", team, devices, lasts, nodes=nodes)
        cluster.tick()
    seen, still = (-1, -1), 0
    while still < 30:
        cluster.tick()
        now = (len(cluster.preemptions), cluster.n_done)
        seen, still = now, still + 1 if now == seen else 0
        assert cluster.now < 1000, "it comes to rest once nothing new comes and the short ones are done"


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from((1, 2)))
def test_small_jobs_do_not_delay_the_large_one_ahead_of_them(seed: int, n_nodes: int) -> None:
    chance = random.Random(seed)
    cluster, alone = (Cluster(n_nodes=3) for _ in range(2))
    for number in range(24):
        lasts = chance.randint(1, 12)
        for each in (cluster, alone):
            each.submit(f"first-{number:02}", "t", 1, lasts)
    for each in (cluster, alone):
        each.tick()
        each.submit("large", "t", 8, 5.0, nodes=n_nodes)
    for number in range(30):
        for i in range(chance.choice((0, 1, 3))):
            cluster.submit(f"small-{number}-{i}", "t", chance.choice((1, 2)), chance.randint(1, 30))
        cluster.tick()
        alone.tick()
    assert cluster.started["large"] == alone.started["large"]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from((1, 2)), st.booleans())
def test_a_large_job_of_one_team_is_not_starved_by_the_small_ones_of_others(
    seed: int, n_nodes: int, knows: bool
) -> None:
    """No small job runs for more than 9 s: what is kept for the large one is free soon after that."""
    chance = random.Random(seed)
    cluster = Cluster(n_nodes=3, knows=knows)
    for number in range(30):
        for team in "abb":
            devices, lasts = chance.choice((1, 2)), chance.randint(2, 9)
            cluster.submit(f"{team}{number}-{len(cluster.jobs)}", team, devices, lasts)
        if number == 10:
            cluster.submit("large", "c", 8, 5.0, nodes=n_nodes)
        cluster.tick()
    assert cluster.started["large"] <= 10 + 15


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from((1, 2)), st.sampled_from((1, 2)))
def test_what_is_owed_is_had_once_what_was_borrowed_has_left(
    seed: int, guests_on: int, owner_on: int
) -> None:
    chance = random.Random(seed)
    cluster = Cluster(n_nodes=4, teams={"owner": TeamShare(quotas={"cpu": Quota(16)})})
    size = chance.choice((1, 2, 4))
    for number in range(32 // size // guests_on):
        cluster.submit(f"g{number}", "guest", size, 10_000.0, nodes=guests_on)
    cluster.tick()
    assert sum(job.slots for job in cluster.running.values()) == 32
    devices = chance.choice((1, 2, 4, 8))
    n_owed = 16 // devices // owner_on
    for number in range(n_owed):
        cluster.submit(f"own{number}", "owner", devices, 10_000.0, nodes=owner_on)
    asked_at = cluster.now
    for _ in range(12):
        cluster.submit(f"late{len(cluster.jobs)}", "guest", 1, 10_000.0)
        cluster.tick()
    owed = [cluster.started.get(f"own{number}", 1e9) for number in range(n_owed)]
    assert all(started <= asked_at + LEAVES_IN + 2 for started in owed)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from((1, 2)), st.booleans())
def test_a_large_job_within_its_teams_quota_is_not_starved_by_what_is_owed_small_ones(
    seed: int, n_nodes: int, knows: bool
) -> None:
    """All of the cluster is owed, and both teams always have small jobs to fill their quota with."""
    chance = random.Random(seed)
    teams = {team: TeamShare(quotas={"cpu": Quota(16)}) for team in "ab"}
    cluster = Cluster(n_nodes=4, teams=teams, knows=knows)
    for number in range(60):
        for team in "ab":
            while sum(job.team == team for job in cluster.queue.values()) < 10:
                devices, lasts = chance.choice((1, 1, 2)), chance.randint(2, 9)
                cluster.submit(f"{team}{number}-{len(cluster.jobs)}", team, devices, lasts)
        if number == 10:
            cluster.submit("large", "a", 8, 5.0, nodes=n_nodes)
        cluster.tick()
    assert cluster.started.get("large", 1e9) <= 10 + 35


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from((1, 2)))
def test_a_large_job_is_not_starved_by_small_ones_that_fill_its_teams_limit(seed: int, n_nodes: int) -> None:
    chance = random.Random(seed)
    limit = 8 * n_nodes
    nominal = chance.choice((0, 3, limit))
    teams = {"a": TeamShare(quotas={"cpu": Quota(nominal, borrowing_limit=limit - nominal)})}
    cluster = Cluster(n_nodes=4, teams=teams)
    for number in range(60):
        while len(cluster.queue) < 10:
            devices, lasts = chance.choice((1, 1, 2)), chance.randint(2, 9)
            cluster.submit(f"s{number}-{len(cluster.jobs)}", "a", devices, lasts)
        if number == 10:
            cluster.submit("large", "a", 8, 5.0, nodes=n_nodes)
        cluster.tick()
    assert cluster.started.get("large", 1e9) <= 10 + 30
