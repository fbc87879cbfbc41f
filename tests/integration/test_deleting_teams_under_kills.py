"""A team goes while schedulers are killed, Postgres dies and the store is away: all of it, once, no more."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_house import JOBS, ApiHouse, api_on, refused
from api_server import ROOT, environment
from change_witness import Change, begin_to_watch, changes, n_changes
from conditions import wait_for
from dispatch_rows import World
from obedient_node import ObedientNode, at_work
from short_lives import ShortLives, short_lives
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from team_estate import N_OLD, N_QUEUED, N_SUBMITTED, Estate, estate

from devstack.postgres import Postgres
from devstack.processes import Child
from shared.artifacts import open_store
from shared.db.engine import transaction
from shared.db.leases import Claim
from shared.db.models import Slot, Team
from shared.domain.job import SlotState
from shared.settings import Settings

pytestmark = pytest.mark.slow

SEED = 1
KILLS = 8
STOPS = 3
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


class MortalPostgres:
    """A server of this test's own that loses nothing when it is killed, with a migrated database."""

    def __init__(self, folder: Path) -> None:
        self._server = Postgres.prepare(folder / "server", durable=True)
        self._part = self._server.part(folder / "log")
        self._child = Child(self._part)
        self._child.wait_ready()
        self._server.create_database("thaw")
        self.url = self._server.url("thaw")
        migrate = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head"]
        subprocess.run(migrate, cwd=ROOT, env={**os.environ, "THAW_DATABASE_URL": self.url}, check=True)

    def die_and_come_back(self) -> None:
        self._child.kill()
        self._child = Child(self._part)
        self._child.wait_ready()

    def end(self) -> None:
        self._child.stop()


@pytest.fixture
def postgres_of_its_own(tmp_path: Path) -> Iterator[MortalPostgres]:
    (tmp_path / "postgres").mkdir()
    server = MortalPostgres(tmp_path / "postgres")
    yield server
    server.end()


@pytest.fixture
def api(
    postgres_of_its_own: MortalPostgres, redis_url: str, store_url: str, tmp_path: Path
) -> Iterator[ApiHouse]:
    url = postgres_of_its_own.url
    settings = Settings(
        database_url=url, redis_url=redis_url, store_url=store_url, work_dir=tmp_path / "work"
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


class Store:
    """The folder of the store, which can be away."""

    def __init__(self, api: ApiHouse, lives: ShortLives) -> None:
        self._folder = Path(urlsplit(api.settings.store_url).path)
        self._away = self._folder.with_name("store-away")
        self._lives = lives
        self._n_missed = 0

    @property
    def is_away(self) -> bool:
        return self._away.exists()

    def hide(self) -> None:
        """A file stands where the folder was: nothing can be read or removed there."""
        self._n_missed = self._missed()
        self._folder.rename(self._away)
        self._folder.write_text("")

    def show_once_missed(self) -> None:
        if self.is_away and self._missed() > self._n_missed:
            self._folder.unlink()
            self._away.rename(self._folder)

    def _missed(self) -> int:
        return self._lives.log().count("the sweep was broken off")


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
        store = Store(api, lives)
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
    scene: Scene, lives: ShortLives, store: Store, faults: list[Callable[[], None]], chance: random.Random
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
