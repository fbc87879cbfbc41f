"""A team goes while schedulers are killed, Postgres dies and the store is away: all of it, once, no more."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, refused
from api_server import environment
from change_witness import Change, begin_to_watch, changes, n_changes
from conditions import wait_for
from dispatch_rows import World
from mortal_postgres import MortalPostgres, mortal_postgres
from obedient_node import ObedientNode, at_work
from short_lives import ShortLives, short_lives
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from store_away import StoreAway
from team_estate import N_OLD, N_QUEUED, N_SUBMITTED, Estate, estate

from shared.artifacts import open_store
from shared.db.engine import transaction
from shared.db.leases import Claim
from shared.db.models import Slot, Team
from shared.domain.job import SlotState
from shared.settings import Settings

pytestmark = pytest.mark.slow

SEED = 1
KILLS = 6
STOPS = 2
SCHEDULERS = 2
RUNNING = 3  # of each team's that were submitted
FREE = 2
DONE_WITHIN_S = 120
# No grace, so that all can be seen to go; small steps, so that many can be broken off. The node is a row.
IMPATIENT = {
    "THAW_SWEEP_S": "0.1",
    "THAW_SWEEP_GRACE_S": "0",
    "THAW_SWEEP_OBJECTS": "150",
    "THAW_SCHEDULE_S": "0.05",
    "THAW_NODE_HEARTBEAT_S": "600",
    "THAW_OFFER_S": "600",
    "THAW_LEASE_S": "600",
}


@pytest.fixture
def postgres_of_its_own(tmp_path: Path) -> Iterator[MortalPostgres]:
    with mortal_postgres(tmp_path / "postgres") as server:
        yield server


@pytest.fixture
def api(
    postgres_of_its_own: MortalPostgres, redis_url: str, store_url: str, tmp_path: Path
) -> Iterator[ApiHouse]:
    settings = Settings(
        database_url=postgres_of_its_own.url,
        redis_url=redis_url,
        store_url=store_url,
        work_dir=tmp_path / "work",
    )
    with api_on(settings) as house:
        yield house


@dataclass
class Scene:
    """Two teams with the same estate on one node, most of whose slots they hold."""

    api: ApiHouse
    going: Estate
    staying: Estate
    node: ObedientNode
    answers: Counter[tuple[str, int]]
    n_stored: int

    @classmethod
    def set(cls, api: ApiHouse) -> Scene:
        world, store = World(api.engine), open_store(api.settings.store_url)
        world.node(slots=2 * RUNNING + FREE)
        going, staying = estate(api, "going"), estate(api, "staying")
        node = ObedientNode(world)
        for slot in range(2 * RUNNING):
            of = (going, staying)[slot % 2]
            claim = node.take(world.offer(of.submitted[slot // 2], slots=(slot,)))
            assert claim is not None
            node.leave_a_file(claim, store)
        begin_to_watch(api.engine)
        return cls(api, going, staying, node, Counter(), len(going.stored()))

    def claims_of(self, estate: Estate) -> list[Claim]:
        return [claim for claim in self.node.claimed if claim.team_id == estate.team]

    def ask_with_both_keys(self) -> None:
        for of in (self.going, self.staying):
            answer = self.api.client.get(JOBS, headers=of.headers, params={"limit": 1})
            self.answers[of.name, answer.status_code] += 1

    def to_do(self) -> int:
        """How much there is to do in all: changes of rows, and files of the store that go."""
        return 2 * N_OLD + 3 * (N_QUEUED + N_SUBMITTED) + self.n_stored

    def done(self) -> int:
        """How much of it is done, as far as can be seen just now."""
        with suppress(DBAPIError):
            return n_changes(self.api.engine) + self.n_stored - len(self.going.stored())
        return 0

    def is_done(self) -> bool:
        """Whether the store holds nothing of the team, its rows are emptied and others have its slots."""
        with suppress(DBAPIError), transaction(self.api.engine) as session:
            is_erased = session.get_one(Team, self.going.team).erased_at is not None
            has_all_slots = len(self.claims_of(self.staying)) == 2 * RUNNING + FREE
            return is_erased and has_all_slots and not self.going.stored()
        return False


def test_all_of_a_team_goes_once_and_nothing_of_another(
    api: ApiHouse, postgres_of_its_own: MortalPostgres, tmp_path: Path
) -> None:
    scene = Scene.set(api)
    going, staying = scene.going, scene.staying
    until = int(time.time())
    held, had = going.usage(until), (staying.usage(until), staying.stored(), staying.rows_of_jobs())
    env = {**environment(api.settings), **IMPATIENT}
    log, chance = tmp_path / "schedulers.log", random.Random(SEED)
    with at_work(scene.node), short_lives(api.engine, env, log, seats=SCHEDULERS, chance=chance) as lives:
        store = StoreAway(api.settings, lives.n_missed_stores)
        faults = [*[lives.kill_one] * KILLS, *[lives.stop_one] * STOPS]
        faults += [store.hide, postgres_of_its_own.die_and_come_back]
        answer = api.client.delete("/v1/teams/going", params={"confirm": "going"})
        assert answer.json() == {"id": going.team, "object": "team", "deleted": False}
        hurt_until_it_is_done(scene, lives, store, faults, chance)
        check_told(lives.log())
    check_gone(scene)
    check_once(scene, changes(api.engine))
    assert going.usage(until) == held, "usage still counts"
    check_untouched(scene, until, *had)
    assert {asked for asked in scene.answers if asked[1] != 503} == {("going", 401), ("staying", 200)}


def hurt_until_it_is_done(
    scene: Scene, lives: ShortLives, store: StoreAway, faults: list[Callable[[], None]], chance: random.Random
) -> None:
    """A fault each time that so much is done, drawn over all that there is to do, however long it takes."""
    whole = scene.to_do()
    points = sorted((chance.uniform(0.05, 0.95) for _ in faults), reverse=True)
    chance.shuffle(faults)

    def go_on() -> bool:
        lives.look()
        scene.ask_with_both_keys()
        store.show_once_missed()
        if points and not store.is_away and scene.done() >= points[-1] * whole:
            points.pop()
            faults.pop()()
        return not points and not store.is_away and scene.is_done()

    wait_for(go_on, DONE_WITHIN_S, "the team to be gone with all that it had")


def check_told(log: str) -> None:
    assert log.count("a team is gone") <= 1
    assert "the sweep failed" not in log


def check_gone(scene: Scene) -> None:
    api, going = scene.api, scene.going
    refused(api.client.get("/v1/teams/going"), 404, None, "no team")
    assert going.stored() == set()
    assert set(going.rows_of_jobs().values()) == {0}
    assert going.says("secret") == 0
    with transaction(api.engine) as session:
        states = Counter(session.scalars(select(Slot.state)))
    assert states == {SlotState.HELD: 2 * RUNNING + FREE}, "the other team's"
    entries = api.client.get("/v1/audit", params={"team": going.team}).json()["data"]
    assert len(entries) == 2 + N_SUBMITTED, "these outlast it"
    assert api.client.post("/v1/teams", json={"name": "going"}).status_code == 200


def check_once(scene: Scene, seen: dict[tuple[str, str, str], list[Change]]) -> None:
    """Each step of the team, and of each thing that it had, was made once and in its order."""
    going = scene.going
    steps = ("deletion_asked_at", "deleted_at", "erased_at")
    asked, gone, erased = (only(seen["teams", going.team, step]) for step in steps)
    assert asked < gone < erased
    jobs = going.jobs()
    assert len(jobs) == N_OLD + N_QUEUED + N_SUBMITTED
    assert {id for kind, id, what in seen if kind == "jobs" and what != "state"} == jobs
    for job in jobs:
        deleted, emptied = only(seen["jobs", job, "deleted_at"]), only(seen["jobs", job, "erased_at"])
        assert asked < deleted <= gone < emptied
    became = Counter(tuple(state for state, _ in seen.get(("jobs", job, "state"), ())) for job in jobs)
    assert became == {
        (): N_OLD,
        ("cancelled",): N_QUEUED + N_SUBMITTED - RUNNING,
        ("stopping", "cancelled"): RUNNING,
    }
    files = [changed for (kind, _, _), changed in seen.items() if kind == "files"]
    assert [len(changed) for changed in files] == [1, 1]


def only(changed: Sequence[Change]) -> datetime:
    """When the one change was made."""
    ((_, at),) = changed
    return at


def check_untouched(
    scene: Scene, until: int, usage: list[dict[str, Any]], stored: set[str], rows: dict[str, int]
) -> None:
    """All that the other team had is there; its jobs went on, and those that waited got the free slots."""
    staying = scene.staying
    assert staying.usage(until) == usage
    assert staying.stored() == stored
    placed_and_taken = 2 * (RUNNING + FREE)
    assert staying.rows_of_jobs() == {**rows, "events": rows["events"] + placed_and_taken}
    claims = scene.claims_of(staying)
    assert len({claim.job_id for claim in claims}) == len(claims)
    assert {claim.attempt_number for claim in claims} == {1}
    scene.node.succeed()
    for claim in claims:
        shown = scene.api.client.get(f"{JOBS}/{claim.job_id}", headers=staying.headers).json()
        assert shown["status"] == "succeeded"
