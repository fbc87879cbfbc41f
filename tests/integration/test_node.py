"""A node between its lives: it leaves for good, and its slots follow its devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dispatch_rows import World
from sqlalchemy import update

from shared.db.clock import seconds_ago
from shared.db.engine import make_engine, transaction
from shared.db.models import NodeRow
from shared.domain.errors import Conflict
from shared.domain.job import JobState, NodeState
from shared.queue import redis_client
from shared.settings import Settings
from worker.devices import Devices
from worker.handling import handling, left_behind
from worker.machine import machine_id
from worker.node import Node


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    engine = make_engine(settings.database_url.get_secret_value())
    yield World(engine).found()
    engine.dispose()


def node(world: World, settings: Settings, *, slots: int) -> Node:
    """A new life of node-0, registered."""
    settings.node_name = "node-0"
    queue = redis_client(settings.redis_url.get_secret_value())
    made = Node(settings, Devices("cpu", None, slots), world.engine, queue)
    made.register()
    world.incarnations["node-0"] = made.incarnation
    return made


def test_a_node_that_was_silent_while_it_leaves_goes_on_leaving(world: World, settings: Settings) -> None:
    leaving = node(world, settings, slots=1)
    leaving.ask_to_leave()
    leaving.beat()
    assert world.node_row().state is NodeState.DRAINING
    with transaction(world.engine) as session:
        session.execute(update(NodeRow).values(state=NodeState.LOST))
    leaving.beat()
    assert world.node_row().state is NodeState.DRAINING


def test_a_node_tells_on_which_machine_it_is(world: World, settings: Settings) -> None:
    node(world, settings, slots=1)
    assert world.node_row().machine == machine_id()


def test_a_slot_that_the_node_has_no_more_goes_with_its_last_job(world: World, settings: Settings) -> None:
    node(world, settings, slots=2)
    job = world.job()
    assert world.claim(world.offer(job, slots=(1,))) is not None
    node(world, settings, slots=1)
    assert world.read(job).state is JobState.QUEUED
    assert world.slots() == ["free"]


def test_locks_of_killed_processes_go_and_those_in_use_stay(world: World, settings: Settings) -> None:
    node(world, settings, slots=2)
    claimed = world.claim(world.offer(world.job()))
    assert claimed is not None
    ended = settings.work_dir / "locks" / "alloc-ended.lock"
    for lock in (ended, ended.with_name(f"{claimed.allocation_id}.lock")):
        lock.touch()
    with handling(settings.work_dir, "alloc-now"):
        node(world, settings, slots=2)
        assert left_behind(settings.work_dir) == {"alloc-now"}
    assert world.read(claimed.job_id).state is JobState.QUEUED
    assert world.slots() == ["free", "free"]


def test_a_name_that_another_host_works_under_is_refused(
    world: World, settings: Settings, tmp_path: Path
) -> None:
    first = node(world, settings, slots=2)
    claimed = world.claim(world.offer(world.job()))
    assert claimed is not None
    second = settings.model_copy(update={"work_dir": tmp_path / "of another host"})
    with pytest.raises(Conflict, match=r"'node-0' is taken.*THAW_NODE_NAME"):
        node(world, second, slots=2)
    assert world.read(claimed.job_id).state is JobState.RUNNING
    assert world.node_row().incarnation == first.incarnation
    with transaction(world.engine) as session:
        session.execute(update(NodeRow).values(last_seen_at=seconds_ago(settings.lease_s)))
    node(world, second, slots=2)
    assert world.node_row().incarnation != first.incarnation
