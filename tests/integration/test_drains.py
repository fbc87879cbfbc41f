"""Nodes that an operator takes away: they stay so, and their jobs leave them in order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dispatch_rows import World
from sqlalchemy import update

from scheduler.loop import Scheduler
from shared.db import drains, nodes, placement
from shared.db.clock import seconds_ago
from shared.db.engine import make_engine, transaction
from shared.db.models import NodeRow
from shared.db.steps import run_step
from shared.domain.errors import NotFound
from shared.domain.job import JobState, NodeState, Outcome
from shared.queue import make_app
from shared.settings import Settings


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    engine = make_engine(settings.database_url.get_secret_value())
    yield World(engine).found()
    engine.dispose()


@pytest.fixture
def scheduler(world: World, settings: Settings) -> Scheduler:
    return Scheduler(world.engine, make_app(settings.redis_url.get_secret_value()), settings)


def drain(world: World, node: str = "node-0") -> None:
    run_step(world.engine, drains.drain, node, actor="api:key-1")


def beat(world: World, node: str = "node-0") -> NodeState:
    assert run_step(world.engine, nodes.beat, node, world.incarnations[node], reachable=True)
    return world.node_row(node).state


def test_the_jobs_of_a_drained_node_leave_it_in_order(world: World, scheduler: Scheduler) -> None:
    claimed = world.running()
    offered = world.job()
    offer = world.offer(offered, slots=(1,))
    drain(world)
    scheduler.step()

    job = world.read(claimed.job_id)
    assert (job.state, job.stop_reason) == (JobState.STOPPING, "drain")
    event = world.events(job.id)[-1]
    assert (event.actor, event.message) == ("api:key-1", "The node node-0 is drained.")
    assert world.read(offered).state is JobState.QUEUED
    assert world.claim(offer) is None
    n_events = len(world.events(job.id))
    scheduler.step()
    assert len(world.events(job.id)) == n_events, "it is asked once"
    assert world.finish(claimed, Outcome.STOPPED)
    scheduler.step()
    for one in (claimed.job_id, offered):
        assert (world.read(one).state, world.read(one).attempts_used) == (JobState.QUEUED, 0)
        assert "no node has that" not in (world.read(one).wait_reason or "")
    assert world.slots() == ["free", "free"]


def test_a_drained_node_stays_so_whatever_its_worker_says(world: World) -> None:
    world.node()
    drain(world)
    assert world.node_row().state is NodeState.DRAINING
    assert beat(world) is NodeState.DRAINING
    world.node()
    assert world.node_row().state is NodeState.DRAINING, "after a restart of its worker"
    with transaction(world.engine) as session:
        session.execute(update(NodeRow).values(state=NodeState.LOST))
    assert beat(world) is NodeState.DRAINING, "after it was lost"
    drained_at = world.node_row().drained_at
    drain(world)
    assert world.node_row().drained_at == drained_at, "twice is once"


def test_an_undrained_node_is_ready_with_its_next_heartbeat(world: World) -> None:
    world.node()
    drain(world)
    run_step(world.engine, drains.undrain, "node-0")
    assert run_step(world.engine, placement.load_nodes, heard_within_s=60)[0].free_slots == ()
    assert beat(world) is NodeState.READY
    run_step(world.engine, drains.undrain, "node-0")
    assert world.node_row().state is NodeState.READY, "twice is once"


def test_undraining_does_not_keep_a_worker_that_leaves_by_itself(world: World) -> None:
    incarnation = world.node()
    drain(world)
    run_step(world.engine, drains.start_drain, "node-0", incarnation)
    run_step(world.engine, drains.undrain, "node-0")
    assert world.node_row().state is not NodeState.READY
    run_step(world.engine, drains.start_drain, "node-0", incarnation)
    assert beat(world) is NodeState.DRAINING


def test_a_lost_node_is_drained_when_it_comes_back(world: World) -> None:
    world.node()
    with transaction(world.engine) as session:
        session.execute(update(NodeRow).values(state=NodeState.LOST, last_seen_at=seconds_ago(1000)))
    drain(world)
    assert world.node_row().state is NodeState.LOST
    world.node()
    assert world.node_row().state is NodeState.DRAINING


def test_a_job_that_leaves_for_good_is_not_asked_to_come_back(world: World, scheduler: Scheduler) -> None:
    claimed = world.running()
    world.stop(claimed.job_id, "cancel")
    drain(world)
    scheduler.step()
    assert world.read(claimed.job_id).stop_reason == "cancel"


def test_an_unknown_node_is_named_with_those_that_are_near(world: World) -> None:
    world.node("rack-1-host-7")
    for act in (lambda: drain(world, "rack-1-host-8"), lambda: run_step(world.engine, drains.undrain, "x\0")):
        with pytest.raises(NotFound, match="rack-1-host-7"):
            act()
