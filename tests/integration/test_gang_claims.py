"""A gang is claimed node by node: it runs with the last, and is let go without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dispatch_rows import LEASE_S, World

from shared.db import leases, reconcile
from shared.db.engine import make_engine
from shared.db.leases import Claim, Renewal
from shared.db.placement import Offer
from shared.db.steps import run_step
from shared.domain.events import ErrorReport
from shared.domain.job import JobState, NodeState, Outcome


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    engine = make_engine(database_url)
    yield World(engine).found()
    engine.dispose()


def renew(world: World, claimed: Claim) -> Renewal | None:
    return run_step(
        world.engine,
        leases.renew,
        token=claimed.token,
        allocation_id=claimed.allocation_id,
        lease_s=LEASE_S,
    )


def offered_gang(world: World) -> list[Offer]:
    """A job of two nodes, offered to both."""
    world.node("node-0")
    world.node("node-1")
    return world.offer_gang(world.job(nodes=2), ("node-0", (0,)), ("node-1", (0,)))


def test_a_gang_runs_when_its_last_node_has_claimed(world: World) -> None:
    first, second = offered_gang(world)
    early = world.claim(first)
    assert early is not None
    assert not early.attempt_running
    assert run_step(world.engine, leases.attempt_is_running, early.token) is False
    assert world.read(early.job_id).state is JobState.DISPATCHED
    late = world.claim(second)
    assert late is not None
    assert late.attempt_running
    assert run_step(world.engine, leases.attempt_is_running, early.token) is True
    assert world.read(early.job_id).state is JobState.RUNNING


def test_a_gang_that_lost_a_node_is_queued_again_once_all_have_left(world: World) -> None:
    early, late = map(world.claim, offered_gang(world))
    assert early is not None
    assert late is not None
    peer_lost = ErrorReport(code="peer_lost", message="the connection was closed", time=1.0)
    cause = ErrorReport(code="worker_lost", message="the rank was killed", time=2.0)
    assert world.finish(late, Outcome.LOST, error=cause)
    assert world.read(early.job_id).state is JobState.RUNNING
    assert renew(world, early) == Renewal(stop_reason=None, ending=True)
    assert world.finish(early, Outcome.LOST, error=peer_lost)
    job = world.read(early.job_id)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 1)
    attempt = world.attempts(job.id)[0]
    assert attempt.error is not None
    assert attempt.error["message"] == "the rank was killed", "a closed connection is never the cause"


def test_a_gang_of_which_one_node_never_answers_is_let_go(world: World) -> None:
    first, _ = offered_gang(world)
    claimed = world.claim(first)
    assert claimed is not None
    run_step(world.engine, reconcile.offer_again, claimed.token, offer_s=0.0, gang_s=0.0)
    assert renew(world, claimed) == Renewal(stop_reason=None, ending=True)
    assert world.slots("node-1") == ["free", "free"]
    assert world.node_row("node-1").state is NodeState.SUSPECT
    assert world.finish(claimed, Outcome.INCOMPLETE)
    job = world.read(claimed.job_id)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 0)
