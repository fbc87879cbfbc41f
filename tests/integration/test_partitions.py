"""A line that stays open and swallows everything: who waits on it gives up in time, and then goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from urllib.parse import quote

import pytest
from dispatch_rows import World
from line import Line, line_to
from pydantic import SecretStr
from sqlalchemy import Engine, exc, make_url, text
from waiting import eventually

from devstack.postgres import Postgres
from devstack.redis import Redis
from scheduler.loop import Scheduler
from shared.db.engine import make_engine, transaction
from shared.domain.events import HEARTBEAT_FILE
from shared.domain.job import JobState
from shared.queue import make_app, n_messages, redis_client
from shared.settings import Settings
from worker.lease import Lease

# With it, a call that finds no answer is given up after two seconds and a half.
STATEMENT_S = 0.5


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=5)
    yield World(engine).found()
    engine.dispose()


@pytest.fixture
def to_postgres(postgres: Postgres) -> Iterator[Line]:
    with line_to(postgres.sockets / ".s.PGSQL.5432") as line:
        yield line


@pytest.fixture
def far_url(settings: Settings, to_postgres: Line) -> str:
    """This test's database, at the end of the line."""
    near = make_url(settings.database_url.get_secret_value())
    return f"postgresql+psycopg://{near.username}@127.0.0.1:{to_postgres.port}/{quote(near.database or '')}"


@pytest.fixture
def far(far_url: str) -> Iterator[Engine]:
    engine = make_engine(far_url, statement_timeout_s=STATEMENT_S, pool_size=2)
    yield engine
    engine.dispose()


def ask(engine: Engine) -> int:
    with transaction(engine) as session:
        return session.execute(text("select 1")).scalar_one()


def test_a_question_that_is_swallowed_is_given_up_and_the_next_is_answered(
    far: Engine, to_postgres: Line
) -> None:
    with transaction(far) as session:
        session.execute(text("select 1"))
        to_postgres.swallow_those_open()
        began = time.monotonic()
        with pytest.raises(exc.OperationalError, match=r"unanswered for 2\.5 s"):
            session.execute(text("select 1"))
        assert time.monotonic() - began < 10
        session.rollback()
    assert ask(far) == 1


def test_a_connection_that_is_never_made_is_given_up(far: Engine, to_postgres: Line) -> None:
    to_postgres.swallow_all()
    began = time.monotonic()
    with pytest.raises(exc.OperationalError):
        ask(far)
    assert time.monotonic() - began < 15
    to_postgres.swallow_all(False)
    assert ask(far) == 1


@pytest.mark.slow
def test_a_scheduler_cut_off_from_the_database_goes_on_when_it_is_back(
    world: World, settings: Settings, far: Engine, to_postgres: Line
) -> None:
    world.node()
    stop = Event()
    app = make_app(settings.redis_url.get_secret_value())
    thread = Thread(target=Scheduler(far, app, settings).run, args=(stop,))
    thread.start()
    try:
        first = world.job()
        eventually(lambda: world.read(first).state is JobState.DISPATCHED)
        to_postgres.swallow_all()
        second = world.job()
        eventually(lambda: to_postgres.n_swallowed > 0)
        to_postgres.swallow_all(False)
        eventually(lambda: world.read(second).state is JobState.DISPATCHED, within_s=60)
    finally:
        stop.set()
        thread.join(60)


@pytest.mark.slow
def test_a_scheduler_cut_off_from_the_queue_places_nothing_until_it_is_back(
    world: World, settings: Settings, redis_server: Redis
) -> None:
    """Else jobs would go to and fro, and nodes be suspected of a silence that is not theirs."""
    world.node()
    own = redis_client(settings.redis_url.get_secret_value())
    with line_to(redis_server.socket) as line:
        url = f"redis://127.0.0.1:{line.port}/0"
        far = settings.model_copy(update={"redis_url": SecretStr(url)})
        scheduler = Scheduler(world.engine, make_app(url), far)
        line.swallow_all()
        unheard = world.job()
        scheduler.step()
        assert world.read(unheard).state is JobState.DISPATCHED, "nobody knew"
        waits = world.job()
        scheduler.step()
        assert world.read(waits).state is JobState.QUEUED
        line.swallow_all(False)
        scheduler.step()
        assert world.read(waits).state is JobState.DISPATCHED
        assert n_messages(own, "node-0") == 1
    own.close()


@pytest.mark.slow
def test_a_lease_whose_renewals_are_swallowed_is_renewed_again_when_they_pass(
    world: World, settings: Settings, far_url: str, to_postgres: Line, tmp_path: Path
) -> None:
    claimed = world.running()
    heartbeat = tmp_path / HEARTBEAT_FILE
    far = settings.model_copy(update={"database_url": SecretStr(far_url), "time_scale": 0.05})
    with Lease(claimed, far, tmp_path) as lease:
        assert lease.wait_until_confirmed(20)
        to_postgres.swallow_all()
        eventually(lambda: to_postgres.n_swallowed > 0)
        last = heartbeat.read_text()
        to_postgres.swallow_all(False)
        eventually(lambda: heartbeat.read_text() != last, within_s=60)
        lease.check_held()
