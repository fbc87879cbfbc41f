"""How an attempt on several nodes ends, by its rows: whom the end of a share takes along, what is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dispatch_rows import World

from shared.db import leases, reconcile
from shared.db.engine import make_engine
from shared.db.leases import Claim, Renewal
from shared.db.placement import Offer
from shared.db.steps import run_step
from shared.domain.events import ErrorReport
from shared.domain.job import AllocationState, AttemptState, JobState, Outcome, StopReason

NODES = ("node-0", "node-1")


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    engine = make_engine(database_url)
    yield World(engine).found()
    engine.dispose()


def gang(world: World) -> tuple[Claim, Claim]:
    """A job that runs on two nodes."""
    first, second = (world.claim(offer) for offer in offered(world))
    assert first is not None
    assert second is not None
    return first, second


def offered(world: World) -> list[Offer]:
    for node in NODES:
        world.node(node)
    return world.offer_gang(world.job(nodes=2), *((node, (0,)) for node in NODES))


def renew(world: World, claim: Claim, lease_s: float = 60.0) -> Renewal | None:
    lease = {"token": claim.token, "allocation_id": claim.allocation_id, "lease_s": lease_s}
    return run_step(world.engine, leases.renew, **lease)


def test_a_node_that_left_as_asked_leaves_the_first_one_time_to_store_the_checkpoint(world: World) -> None:
    first, second = gang(world)
    world.stop(first.job_id, StopReason.PAUSE)
    assert world.finish(second, Outcome.STOPPED)
    assert renew(world, first) == Renewal(StopReason.PAUSE, ending=False)
    assert world.finish(first, Outcome.STOPPED)
    job = world.read(first.job_id)
    assert (job.state, job.attempts_used) == (JobState.PAUSED, 0)


def test_a_peer_that_dies_behind_a_stored_checkpoint_costs_no_try(world: World) -> None:
    first, second = gang(world)
    world.stop(first.job_id, StopReason.PREEMPT)
    assert world.finish(first, Outcome.STOPPED)
    killed = ErrorReport(code="process_killed", message="rank 1 was killed", time=0.0)
    assert world.finish(second, Outcome.LOST, error=killed)
    job = world.read(first.job_id)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 0)


def test_of_a_hang_the_node_counts_whose_rank_hangs(world: World) -> None:
    first, second = gang(world)
    waits = ErrorReport(code="no_progress", message="rank 0 stands in all_reduce", time=1.0)
    hangs = ErrorReport(code="no_progress", message="rank 1 stands in forward", rank=1, time=2.0)
    assert world.finish(first, Outcome.LOST, error=waits)
    assert world.finish(second, Outcome.LOST, error=hangs)
    lost = world.attempts(first.job_id)[0]
    assert lost.error is not None
    assert (lost.error["message"], lost.error["node"]) == ("rank 1 stands in forward", "node-1")


def test_a_share_that_stopped_before_all_had_claimed_takes_the_open_offer_back(world: World) -> None:
    offer, _ = offered(world)
    early = world.claim(offer)
    assert early is not None
    world.stop(early.job_id, StopReason.CANCEL)
    assert world.finish(early, Outcome.STOPPED)
    assert world.read(early.job_id).state is JobState.CANCELLED
    assert world.slots("node-1") == ["free", "free"]


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_gang_leaves_when_one_node_has_renewed_nothing_for_as_long_as_ranks_run_without(
    world: World, comes_back: bool
) -> None:
    first, second = gang(world)
    terms = {"unrenewed_s": 40.0, "lease_s": 60.0}
    renew(world, second, lease_s=21.0)
    assert not run_step(world.engine, reconcile.held_gangs, **terms)
    renew(world, second, lease_s=19.0)
    assert run_step(world.engine, reconcile.held_gangs, **terms) == [first.token]
    assert run_step(world.engine, reconcile.end_held_gang, first.token, **terms)

    assert renew(world, first) == Renewal(None, ending=True)
    still = world.allocation(second.allocation_id)
    assert still.state is AllocationState.CLAIMED, "its lease stands, so its slots are not given out"
    assert world.attempts(first.job_id)[0].state is AttemptState.ENDING
    peer_lost = ErrorReport(code="peer_lost", message="another node failed", time=1.0)
    assert world.finish(first, Outcome.LOST, error=peer_lost)
    if comes_back:
        assert renew(world, second) == Renewal(None, ending=True)
        assert world.finish(second, Outcome.LOST, error=peer_lost)
    else:
        renew(world, second, lease_s=-1.0)
        assert run_step(world.engine, reconcile.expire, second.token)

    lost, job = world.attempts(first.job_id)[0], world.read(first.job_id)
    assert lost.error is not None
    assert (lost.error["code"], "node-1" in lost.error["message"]) == ("worker_lost", True)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 1)
