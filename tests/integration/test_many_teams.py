"""Three schedulers on as large a cluster as is promised: 10,000 jobs of 50 teams on 1,000 nodes."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from conditions import wait_for
from services import processes
from sqlalchemy import Engine, Row, text

from shared.db.engine import make_engine, transaction
from shared.domain.cluster import Waiting, could_ever_run
from shared.domain.quota import Quota
from shared.queue import node_queue, redis_client
from shared.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from _moment_rows import settle, write_moment
from fair_share_pass import QUEUED, SLOTS, Moment, drawn

pytestmark = pytest.mark.slow

SCHEDULERS = 3
GANG = 2
BORROWED = 10
QUIET_S = 3.0
# The first job of a type that finds no room keeps as many nodes as it needs: what is free there is its own.
KEPT_NODES = GANG

_HELD = """
select jobs.id as job, jobs.team_id as team, allocations.node_id as node, allocations.accelerator as type,
       allocations.slots, attempts.id as attempt
from allocations join attempts on attempts.id = allocations.attempt_id join jobs on jobs.id = attempts.job_id
"""
_WAITS = "select id, wait_reason from jobs where state = 'queued'"
_UNTOLD = "select count(*) from jobs where state = 'queued' and wait_reason is null"
_OFFERS = "select count(*) from allocations"
_SLOTS = "select node_id, index, state from slots"


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    made = make_engine(settings.database_url.get_secret_value())
    yield made
    made.dispose()


@dataclass(frozen=True)
class Seen:
    """What the database holds when the schedulers have done all they can."""

    held: list[Row[Any]]
    waits: dict[str, str]
    slots: dict[tuple[str, int], str]

    @classmethod
    def of(cls, engine: Engine) -> Seen:
        with transaction(engine) as session:
            held = list(session.execute(text(_HELD)))
            waits = {row.id: row.wait_reason for row in session.execute(text(_WAITS))}
            slots = {(row.node_id, row.index): row.state for row in session.execute(text(_SLOTS))}
        return cls(held, waits, slots)

    @property
    def taken(self) -> list[tuple[str, int]]:
        """By the allocations: node and index, as often as they are given out."""
        return [(share.node, index) for share in self.held for index in share.slots]


def with_gangs(moment: Moment) -> Moment:
    """Every hundredth job asks for two nodes."""
    queue = [replace(one, nodes=GANG) if i % 100 == 0 else one for i, one in enumerate(moment.queue)]
    return replace(moment, queue=queue)


def with_tight_limits(moment: Moment) -> Moment:
    """Who owns slots may borrow so few that those with many jobs come up against it."""
    teams = {
        team: replace(
            share,
            quotas={type: replace(quota, borrowing_limit=BORROWED) for type, quota in share.quotas.items()},
        )
        for team, share in moment.teams.items()
    }
    return replace(moment, teams=teams)


def test_all_that_fits_is_placed_once_within_quotas_and_what_waits_is_told_why(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    moment = with_tight_limits(with_gangs(drawn(1.0, owners=0)))
    write_moment(engine, moment)
    settle(engine)
    run_schedulers(engine, settings, moment, tmp_path)
    seen = Seen.of(engine)
    check_placed_once(moment, seen)
    books = Books(moment, seen)
    assert books.broken() == []
    assert books.at_their_limit(), "a limit that nobody reaches proves nothing"
    assert books.left_over(seen.waits) == {}
    assert [job for job, reason in seen.waits.items() if not reason] == []


def run_schedulers(engine: Engine, settings: Settings, moment: Moment, logs: Path) -> None:
    """Until every job has been placed or told why not, each offer has its message, and no more come."""
    # The nodes are rows alone, which nobody keeps alive, and their offers stay unanswered.
    patient = {"THAW_NODE_HEARTBEAT_S": "600", "THAW_OFFER_S": "600", "THAW_LEASE_S": "600"}
    paths = [logs / f"scheduler-{number}.log" for number in range(SCHEDULERS)]
    commands, environments = [["-m", "scheduler"]] * SCHEDULERS, [patient] * SCHEDULERS
    with processes(*commands, settings=settings, environments=environments, logs=paths):
        wait_for(lambda: counted(engine, _UNTOLD) == 0, 240, "every job to be placed or told why not")
        wait_for(Quiet(engine, settings, moment), 120, "a message for each offer, and no more offers")
    placed_by = [path.read_bytes().count(b'"event": "offered"') for path in paths]
    assert sum(n > 0 for n in placed_by) > 1, f"one of them placed all: {placed_by}"


class Quiet:
    """Whether there has been no new offer for some passes of each scheduler, and all have their messages."""

    def __init__(self, engine: Engine, settings: Settings, moment: Moment) -> None:
        self._ask = lambda: (counted(engine, _OFFERS), n_lying(settings, moment))
        self._offers, self._since = -1, 0.0

    def __call__(self) -> bool:
        offers, lying = self._ask()
        if (offers, offers) != (self._offers, lying):
            self._offers, self._since = offers, time.monotonic()
        return time.monotonic() - self._since > QUIET_S


def counted(engine: Engine, query: str) -> int:
    with transaction(engine) as session:
        return int(session.scalar(text(query)) or 0)


def n_lying(settings: Settings, moment: Moment) -> int:
    """The messages in the queues of all nodes."""
    client = redis_client(settings.redis_url.get_secret_value())
    with client.pipeline(transaction=False) as pipeline:
        for node in moment.nodes:
            pipeline.llen(node_queue(node.id).name)
        lengths = pipeline.execute()
    client.close()
    return sum(lengths)


def check_placed_once(moment: Moment, seen: Seen) -> None:
    """Each job once or not at all, a gang on all its nodes, each slot for one alone and as it is written."""
    asked = {job.id: job for job in moment.queue}
    attempts = Counter({(share.job, share.attempt): 0 for share in seen.held})
    assert len(attempts) == len({job for job, _ in attempts}) == QUEUED - len(seen.waits)
    for share in seen.held:
        attempts[share.job, share.attempt] += 1
        assert len(share.slots) == asked[share.job].devices_per_node
    assert {job: n for (job, _), n in attempts.items() if n != asked[job].nodes} == {}
    assert sorted(seen.taken) == sorted(place for place, state in seen.slots.items() if state == "held")


class Books:
    """What teams hold and may hold by `docs/fair-share.md`, counted apart from the scheduler's own books."""

    def __init__(self, moment: Moment, seen: Seen) -> None:
        self._moment = moment
        self._held: Counter[tuple[str, str]] = Counter()
        for share in seen.held:
            self._held[share.team, share.type] += len(share.slots)
        self._room: Counter[str] = Counter()
        for (node, _), state in seen.slots.items():
            self._room[node] += state == "free"
        self._size: Counter[str] = Counter()
        self._free: Counter[str] = Counter()
        for node in moment.nodes:
            self._size[node.accelerator] += node.n_slots
            self._free[node.accelerator] += self._room[node.id]

    def broken(self) -> list[str]:
        """Teams beyond nominal quota and borrowing limit, and types of which more is borrowed than lent."""
        found = []
        for type, size in self._size.items():
            borrowed = 0
            for team in self._moment.teams:
                quota, held = self._quota(team, type), self._held[team, type]
                if quota.borrowing_limit is not None and held > quota.nominal + quota.borrowing_limit:
                    found.append(f"{team} holds {held} of {type}")
                borrowed += held if held > quota.nominal else kept(quota)
            if borrowed > size:
                found.append(f"of {type} what is borrowed and what is not lent are {borrowed} of {size}")
        return found

    def at_their_limit(self) -> list[str]:
        """Teams that hold all of a type that they may."""
        return [
            team
            for (team, type), held in self._held.items()
            if held == self._quota(team, type).nominal + BORROWED
        ]

    def left_over(self, waits: dict[str, str]) -> dict[str, list[str]]:
        """By accelerator type, the nodes on which a waiting job would fit that its team may have there.

        Unless it must leave that to the first of its team's jobs that wait.
        """
        jobs = sorted((job for job in self._moment.queue if job.id in waits), key=attrgetter("order"))
        nodes = {type: self._would_serve(type, jobs) for type in self._size}
        return {type: found for type, found in nodes.items() if len(found) > KEPT_NODES}

    def _would_serve(self, type: str, jobs: list[Waiting]) -> list[str]:
        ours = [node for node in self._moment.nodes if node.accelerator == type]
        fitting = [job for job in jobs if could_ever_run(job, ours[0])]
        wanted = [
            job.devices_per_node for job in fitting if job.nodes == 1 and self._may_have(job, type, fitting)
        ]
        return [node.id for node in ours if self._room[node.id] >= min(wanted, default=SLOTS + 1)]

    def _may_have(self, job: Waiting, type: str, line: list[Waiting]) -> bool:
        """Beside what its team's first waits for. `line`: all that wait and could run there, in order."""
        quota, held = self._quota(job.team, type), self._held[job.team, type]
        limit = math.inf if quota.borrowing_limit is None else quota.nominal + quota.borrowing_limit
        firsts = (one for one in line if one.team == job.team and slots_of(one) <= limit)
        first = next(firsts, job)
        if first is not job:
            both, theirs = held + slots_of(job) + slots_of(first), slots_of(first)
            is_short = held < quota.nominal < both and theirs <= quota.nominal
            if both > limit or is_short:
                return False
        return self._may_take(job.team, type, slots_of(job))

    def _may_take(self, team: str, type: str, slots: int) -> bool:
        quota, would_hold = self._quota(team, type), self._held[team, type] + slots
        if would_hold <= quota.nominal:
            return True
        if quota.borrowing_limit is not None and would_hold > quota.nominal + quota.borrowing_limit:
            return False
        others = [name for name in self._moment.teams if name != team]
        idle = sum(max(0, kept(self._quota(one, type)) - self._held[one, type]) for one in others)
        return self._free[type] - KEPT_NODES * SLOTS - slots >= idle

    def _quota(self, team: str, type: str) -> Quota:
        return self._moment.teams[team].quotas.get(type, Quota())


def kept(quota: Quota) -> int:
    """What the team lends nobody."""
    return 0 if quota.lending_limit is None else quota.nominal - quota.lending_limit


def slots_of(job: Waiting) -> int:
    """On all of its nodes."""
    return job.devices_per_node * job.nodes
