"""How an attempt on several nodes ends, by its rows: whom the end of a share takes along, what is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from checkpoint_rows import go_on_from, store
from dispatch_rows import World

from shared.db import checkpoints, drains, leases, reconcile
from shared.db.engine import make_engine, transaction
from shared.db.leases import Claim, Renewal
from shared.db.peers import Peer, peers_before
from shared.db.placement import Offer
from shared.db.steps import run_step
from shared.domain.events import ErrorReport
from shared.domain.job import AllocationState, AttemptState, JobState, Outcome, StopReason

NODES = ("node-0", "node-1")
KILLED = ErrorReport(code="worker_lost", message="the worker on node-0 ended", time=1.0)


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


def offered(world: World, *nodes: str) -> list[Offer]:
    for node in nodes or NODES:
        world.node(node)
    return offered_again(world, world.job(nodes=len(nodes or NODES)), *nodes)


def offered_again(world: World, job: str, *nodes: str) -> list[Offer]:
    return world.offer_gang(job, *((node, (0,)) for node in nodes or NODES))


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


def test_a_node_that_dies_before_it_has_stored_the_checkpoint_costs_a_try_though_its_peer_has_left(
    world: World,
) -> None:
    first, second = gang(world)
    world.stop(first.job_id, StopReason.PAUSE)
    assert world.finish(second, Outcome.STOPPED)
    assert world.finish(first, Outcome.LOST, error=KILLED.model_copy(update={"time": time.time()}))
    job, lost = world.read(first.job_id), world.attempts(first.job_id)[0]
    assert (job.state, job.attempts_used, lost.outcome) == (JobState.PAUSED, 1, Outcome.LOST)
    assert "the worker on node-0 ended" in world.events(job.id)[-1].message


def test_a_checkpoint_that_was_not_stored_is_told_though_the_other_node_left_before(world: World) -> None:
    first, second = gang(world)
    world.stop(first.job_id, StopReason.DRAIN)
    assert world.finish(second, Outcome.STOPPED)
    earlier = "it goes on from an earlier one"
    away = ErrorReport(code="checkpoint_not_stored", message=earlier, time=time.time())
    assert world.finish(first, Outcome.STOPPED, error=away)
    job = world.read(first.job_id)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 0)
    assert earlier in world.events(job.id)[-1].message


def test_a_peer_that_dies_once_another_has_left_does_not_cut_the_first_node_off(world: World) -> None:
    first, second, third = filter(None, map(world.claim, offered(world, "node-0", "node-1", "node-2")))
    world.stop(first.job_id, StopReason.PREEMPT)
    assert world.finish(second, Outcome.STOPPED)
    assert world.finish(third, Outcome.LOST, error=KILLED)
    assert renew(world, first) == Renewal(StopReason.PREEMPT, ending=False)
    assert world.finish(first, Outcome.STOPPED)
    job = world.read(first.job_id)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 0)


def test_a_worker_that_leaves_takes_its_whole_gang_along_and_no_try(world: World) -> None:
    first, second = gang(world)
    told = {"node_id": "node-1", "actor": "node-1", "reason": "It leaves."}
    for _ in range(2):  # with each of its beats
        life = world.incarnations["node-1"]
        assert run_step(world.engine, drains.start_drain, "node-1", life) == [first.token]
        run_step(world.engine, drains.leave, first.token, **told)
    for share, leaves in ((second, True), (first, False)):
        assert renew(world, share) == Renewal(StopReason.DRAIN, ending=False, node_leaves=leaves)
        assert world.finish(share, Outcome.STOPPED)
    job = world.read(first.job_id)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 0)
    moves = [event.data["new"] for event in world.events(job.id) if event.type == "state"]
    assert moves[-3:] == ["running", "stopping", "queued"], "it was asked once"


def test_a_checkpoint_that_the_first_node_alone_finds_damaged_takes_no_other_along(world: World) -> None:
    """The others could read it, so they would go on from another one than the first."""
    first, second = gang(world)
    assert store(world, first, 1)
    assert store(world, first, 2)
    for share in (first, second):
        assert world.finish(share, Outcome.LOST, error=KILLED)
    used = world.read(first.job_id).attempts_used

    first, second = filter(None, map(world.claim, offered_again(world, first.job_id)))
    with transaction(world.engine) as session:
        newest, before = session.scalars(checkpoints.usable(first.job_id)).all()
    told = {"token": first.token, "checkpoint_id": newest.id, "why": "rotten", "actor": "node-0"}
    assert run_step(world.engine, checkpoints.leave_out, **told)
    assert go_on_from(world, first, before.id)
    apart = ErrorReport(code="checkpoint_mismatch", message="from steps 1 and 2", time=1.0)
    for share in (second, first):
        assert world.finish(share, Outcome.LOST, error=apart)

    job = world.read(first.job_id)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, used)
    assert offered_again(world, job.id)
    assert world.attempts(job.id)[-1].resume_from == before.id


def test_of_a_hang_the_node_counts_whose_rank_hangs(world: World) -> None:
    first, second = gang(world)
    waits = ErrorReport(code="no_progress", message="rank 0 stands in all_reduce", time=1.0)
    hangs = ErrorReport(code="no_progress", message="rank 1 stands in forward", rank=1, time=2.0)
    assert world.finish(first, Outcome.LOST, error=waits)
    assert world.finish(second, Outcome.LOST, error=hangs)
    lost = world.attempts(first.job_id)[0]
    assert lost.error is not None
    assert (lost.error["message"], lost.error["node"]) == ("rank 1 stands in forward", "node-1")


def test_what_all_ranks_found_is_told_of_the_node_whose_rank_it_was(world: World) -> None:
    """Whoever of them was the first to say so."""
    first, second = gang(world)
    for share, time_s in ((second, 1.0), (first, 2.0)):
        nan = ErrorReport(code="non_finite_loss", message="NaN on rank 0", rank=0, time=time_s)
        assert world.finish(share, Outcome.FAILED, error=nan)
    error = world.read(first.job_id).error
    assert error is not None
    assert (error["rank"], error["node"]) == (0, "node-0")


def test_each_node_of_a_gang_learns_where_those_of_lower_rank_answer(world: World) -> None:
    for number in range(3):
        world.node(f"node-{number}", host=f"10.0.0.{number}")
    slots = (("node-2", (0,)), ("node-0", (1,)), ("node-1", (0,)))
    claims = [world.claim(offer) for offer in world.offer_gang(world.job(nodes=3), *slots)]
    world.node("node-2", host="10.0.0.9")
    told = [
        run_step(world.engine, peers_before, claim.attempt_id, claim.node_rank) for claim in claims if claim
    ]
    first, second = Peer("node-2", "10.0.0.2", 29500), Peer("node-0", "10.0.0.0", 29501)
    assert told == [[], [first], [first, second]], "the first at where the ranks do meet"


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


def test_reconcilers_at_once_and_a_late_report_end_a_gang_once(world: World) -> None:
    with ThreadPoolExecutor(5) as pool:
        for number in range(6):
            shares = offered(world, f"node-{number}-0", f"node-{number}-1")
            first, second = filter(None, map(world.claim, shares))
            for share in (first, second):
                renew(world, share, lease_s=-1.0)
            expiring = [pool.submit(run_step, world.engine, reconcile.expire, first.token) for _ in range(4)]
            late = pool.submit(world.finish, second, Outcome.LOST, error=KILLED)
            assert sum(one.result() for one in expiring) == 1
            ends = {world.allocation(share.allocation_id).state for share in (first, second)}
            assert late.result() is (AllocationState.ENDED in ends)

            job = world.read(first.job_id)
            assert (job.state, job.attempts_used) == (JobState.QUEUED, 1)
            events = world.events(job.id)
            assert [event.seq for event in events] == list(range(1, job.n_events + 1))
            moves = [event.data["new"] for event in events if event.type == "state"]
            assert moves == ["queued", "dispatched", "running", "queued"]
