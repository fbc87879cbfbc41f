"""A worker that hears nothing from Redis while offers wait for it in the database mends that by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dispatch_rows import World
from line import Line, line_to
from pydantic import SecretStr
from sqlalchemy import select
from waiting import eventually

from devstack.redis import Redis
from scheduler.loop import Scheduler
from shared.db.engine import make_engine, transaction
from shared.db.models import NodeRow
from shared.domain.job import JobState, NodeState
from shared.queue import make_app
from shared.settings import Settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = Path(__file__).resolve().parent / "deaf_program.py"
# Of the offers' times; the rest of the worker needs no lease here.
SCALE = 0.2


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=10)
    world = World(engine).found().know_models()
    yield world
    engine.dispose()


@pytest.fixture
def line(redis_server: Redis, redis_url: str) -> Iterator[Line]:
    """The worker's line to Redis; everybody else has one of their own."""
    assert redis_url
    with line_to(redis_server.socket) as line:
        yield line


class Node:
    """A worker of node-0 at the end of the line, and a scheduler beside it."""

    def __init__(self, world: World, settings: Settings, line: Line, deaf: str) -> None:
        self.world = world
        self.settings = settings.model_copy(update={"time_scale": SCALE})
        settings.work_dir.mkdir()
        (settings.work_dir / "deaf").write_text(deaf)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "THAW_DATABASE_URL": settings.database_url.get_secret_value(),
            "THAW_REDIS_URL": f"redis://127.0.0.1:{line.port}/0",
            "THAW_STORE_URL": settings.store_url,
            "THAW_WORK_DIR": str(settings.work_dir),
            "THAW_NODE_NAME": "node-0",
            "THAW_SLOTS": "2",
            "THAW_TIME_SCALE": str(SCALE),
        }
        self.process = subprocess.Popen([sys.executable, str(PROGRAM)], env=environment, cwd=ROOT)
        app = make_app(settings.redis_url.get_secret_value())
        self._scheduler = Scheduler(world.engine, app, self.settings)
        eventually(lambda: self.row() is not None and self.row().state is NodeState.READY, within_s=60)

    def row(self) -> NodeRow | None:
        with transaction(self.world.engine) as session:
            return session.scalar(select(NodeRow))

    def runs(self, job: str) -> bool:
        """Whether the job runs, after one more step of the scheduler."""
        self._scheduler.step()
        return self.world.read(job).state is JobState.RUNNING

    def life(self) -> object:
        row = self.row()
        return row and row.incarnation


@pytest.fixture
def node(world: World, settings: Settings, line: Line, request: pytest.FixtureRequest) -> Iterator[Node]:
    settings.redis_url = SecretStr(settings.redis_url.get_secret_value())
    node = Node(world, settings, line, request.param)
    yield node
    node.process.kill()
    node.process.wait()


@pytest.mark.parametrize("node", ["not at all"], indirect=True)
def test_a_line_that_swallows_everything_for_a_while_costs_only_time(node: Node, line: Line) -> None:
    line.swallow_all()
    eventually(lambda: node.row().state is NodeState.SUSPECT, within_s=60)
    line.swallow_all(False)
    job = node.world.job()
    life = node.life()
    eventually(lambda: node.runs(job), within_s=90)
    assert node.life() == life, "the connection was made anew, not the process"


@pytest.mark.parametrize("node", ["to kombu"], indirect=True)
def test_a_worker_whose_connection_is_swallowed_connects_anew_and_its_jobs_run_on(
    node: Node, line: Line
) -> None:
    first = node.world.job()
    eventually(lambda: node.runs(first), within_s=60)
    life = node.life()
    line.swallow_those_open()
    second = node.world.job()
    eventually(lambda: node.runs(second), within_s=60)
    assert node.life() == life
    assert node.world.read(first).state is JobState.RUNNING
    assert len(node.world.attempts(first)) == 1


@pytest.mark.parametrize("node", ["for good"], indirect=True)
def test_a_worker_that_stays_deaf_begins_anew_under_the_same_process_id(node: Node) -> None:
    life, job = node.life(), node.world.job()
    eventually(lambda: node.runs(job), within_s=90)
    assert node.life() != life
    assert node.process.poll() is None
    assert node.world.read(job).attempts_used == 0
