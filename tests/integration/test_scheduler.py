"""The scheduler on the real database and queue: each job placed once, in order, through what goes wrong."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest
import redis
from dispatch_rows import World
from sqlalchemy import text, update
from waiting import eventually

from scheduler.loop import Scheduler
from scheduler.placing import place_jobs
from shared.db import clock, leases, nodes, reconcile
from shared.db.engine import make_engine, transaction
from shared.db.history import lock_job
from shared.db.models import Allocation, Attempt, NodeRow
from shared.db.placement import Offer
from shared.db.steps import run_step
from shared.domain.events import ErrorReport
from shared.domain.failures import PEER_LOST
from shared.domain.job import JobState, NodeState, Outcome, StopReason
from shared.queue import make_app, node_queue, redis_client
from shared.settings import Settings

FAST = 0.04
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=10)
    yield World(engine).found()
    engine.dispose()


@pytest.fixture
def queue(settings: Settings) -> Iterator[redis.Redis]:
    client = redis_client(settings.redis_url.get_secret_value())
    yield client
    client.close()


def scheduler(world: World, settings: Settings) -> Scheduler:
    return Scheduler(world.engine, make_app(settings.redis_url.get_secret_value()), settings)


def messages(queue: redis.Redis, node: str = "node-0") -> list[list[object]]:
    """The arguments of the messages in a node's queue, oldest first."""
    raw = queue.lrange(node_queue(node).name, 0, -1)
    return [json.loads(base64.b64decode(json.loads(one)["body"]))[0] for one in reversed(raw)]


def age(world: World, offer_s: float, *, attempt_s: float = 0.0) -> None:
    """Make every offer and attempt older."""
    with transaction(world.engine) as session:
        session.execute(
            update(Allocation).values(offered_at=Allocation.offered_at - text(f"interval '{offer_s} s'"))
        )
        session.execute(
            update(Attempt).values(created_at=Attempt.created_at - text(f"interval '{attempt_s} s'"))
        )


def silence(world: World, settings: Settings) -> list[Offer]:
    """One round over unanswered offers."""
    made: list[Offer] = []
    for token in run_step(world.engine, reconcile.unanswered_offers, offer_s=settings.offer_s):
        made += run_step(
            world.engine,
            reconcile.offer_again,
            token,
            offer_s=settings.offer_s,
            gang_s=settings.gang_s,
        )
    return made


def test_two_schedulers_at_once_place_each_job_once(world: World, settings: Settings) -> None:
    world.node(slots=8)
    jobs = [world.job() for _ in range(12)]
    with ThreadPoolExecutor(4) as pool:
        passes = pool.map(lambda _: run_step(world.engine, place_jobs, settings), range(16))
        offers = [offer for placed in passes for offer in placed]
    assert len(offers) == 8
    assert sum(len(world.attempts(job)) for job in jobs) == 8
    assert world.slots() == ["held"] * 8


def test_two_schedulers_at_once_place_a_gang_once_and_whole(world: World, settings: Settings) -> None:
    for number in range(4):
        world.node(f"node-{number}", slots=2)
    gangs = [world.job(nodes=2, devices_per_node=2) for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        passes = pool.map(lambda _: run_step(world.engine, place_jobs, settings), range(16))
        offers = [offer for placed in passes for offer in placed]
    assert sorted(offer.node_id for offer in offers) == [f"node-{number}" for number in range(4)]
    tries = [attempt for gang in gangs for attempt in world.attempts(gang)]
    assert [attempt.nodes for attempt in tries] == [2, 2]
    ranks = [world.allocation(offer.allocation_id) for offer in offers]
    assert sorted((one.attempt_id, one.node_rank) for one in ranks) == sorted(
        (attempt.id, rank) for attempt in tries for rank in range(2)
    )
    assert all(world.slots(f"node-{number}") == ["held", "held"] for number in range(4))


def test_gangs_placed_at_once_on_the_same_nodes_in_any_order_wait_for_nobody(world: World) -> None:
    for name in ("node-0", "node-1"):
        world.node(name, slots=10)
    with ThreadPoolExecutor(2) as pool:
        for slot in range(10):
            parts = [("node-0", (slot,)), ("node-1", (slot,))]
            asked = [(world.job(nodes=2), order) for order in (parts, parts[::-1])]
            made = pool.map(lambda one: world.offer_gang(one[0], *one[1]), asked)
            assert sorted(map(len, made)) in ([0, 0], [0, 2])
    held = [world.slots(name) for name in ("node-0", "node-1")]
    assert held[0] == held[1]
    assert "held" in held[0]


def test_a_gang_meets_where_its_first_node_says_and_is_told_of_all(world: World) -> None:
    world.node("node-0", slots=4)
    world.node("node-1", slots=4)
    gang = world.job(nodes=2, devices_per_node=2)
    first, second = world.offer_gang(gang, ("node-1", (3, 2)), ("node-0", (0, 1)))
    assert [world.allocation(one.allocation_id).node_rank for one in (first, second)] == [0, 1]
    claims = [world.claim(offer) for offer in (second, first)]
    told = [
        claim and (claim.node_rank, claim.nodes, claim.master_port, claim.attempt_running) for claim in claims
    ]
    assert told == [(1, 2, 29502, False), (0, 2, 29502, True)]
    offered = next(event for event in world.events(gang) if event.data.get("new") == "dispatched")
    assert offered.message == "Offered slots 2, 3 of node-1 and slots 0, 1 of node-0, try 1."
    assert offered.data["nodes"] == [{"node": "node-1", "slots": [2, 3]}, {"node": "node-0", "slots": [0, 1]}]


def test_a_gang_of_which_one_slot_is_taken_is_not_placed_at_all(world: World) -> None:
    world.node("node-0")
    world.node("node-1")
    world.offer(world.job(), "node-1")
    gang = world.job(nodes=2)
    assert world.offer_gang(gang, ("node-0", (0,)), ("node-1", (0,))) == []
    assert (world.read(gang).state, world.attempts(gang)) == (JobState.QUEUED, [])
    assert world.slots("node-0") == ["free", "free"]


def test_a_gang_of_two_machines_waits_until_each_gives_an_address_that_the_other_reaches(
    world: World, settings: Settings
) -> None:
    world.node("node-0", machine="m")
    world.node("node-1", machine="n", host="10.0.0.8")
    gang, alone = world.job(nodes=2), world.job(devices_per_node=2)
    run_step(world.engine, place_jobs, settings)
    assert world.read(alone).state is JobState.DISPATCHED
    assert "THAW_ADVERTISE_HOST" in (world.read(gang).wait_reason or "")
    world.node("node-2", machine="m", host="10.0.0.7")
    run_step(world.engine, place_jobs, settings)
    assert world.read(gang).state is JobState.DISPATCHED


def test_on_one_machine_a_gang_needs_no_address(world: World, settings: Settings) -> None:
    for name in ("node-0", "node-1"):
        world.node(name, machine="m")
    world.node("gone", machine="n")
    with transaction(world.engine) as session:
        session.execute(update(NodeRow).where(NodeRow.id == "gone").values(state=NodeState.DRAINING))
    gang = world.job(nodes=2)
    run_step(world.engine, place_jobs, settings)
    assert world.read(gang).state is JobState.DISPATCHED


def test_a_gang_whose_second_node_is_silent_is_taken_back(world: World, settings: Settings) -> None:
    lives = {name: world.node(name) for name in ("node-0", "node-1")}
    gang = world.job(nodes=2, devices_per_node=2)
    offers = run_step(world.engine, place_jobs, settings)
    claimed = world.claim(offers[0])
    assert claimed is not None
    assert not claimed.attempt_running
    age(world, 31, attempt_s=31)
    assert silence(world, settings) == []
    ending = run_step(
        world.engine,
        leases.renew,
        token=claimed.token,
        allocation_id=claimed.allocation_id,
        lease_s=60.0,
    )
    assert ending is not None
    assert ending.ending, "the node that has answered learns of it"
    told = ErrorReport(code=PEER_LOST, message="another node of the try has ended", time=time.time())
    assert world.finish(claimed, Outcome.LOST, error=told)
    assert (world.read(gang).state, world.read(gang).attempts_used) == (JobState.QUEUED, 0)
    assert world.attempts(gang)[0].outcome is Outcome.INCOMPLETE
    states = {name: (world.node_row(name).state, world.slots(name)) for name in lives}
    assert states == {
        offers[0].node_id: (NodeState.READY, ["free", "free"]),
        offers[1].node_id: (NodeState.SUSPECT, ["free", "free"]),
    }
    assert run_step(world.engine, place_jobs, settings) == [], "not on one node alone"
    assert world.claim(offers[1]) is None


def test_a_pass_places_only_so_many_and_the_next_goes_on(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.placing._MOST_PLACED", 1)
    world.node("a", slots=2)
    jobs = [world.job(), world.job()]
    placed = [len(run_step(world.engine, place_jobs, settings)) for _ in range(3)]
    assert placed == [1, 1, 0]
    assert all(world.read(job).state is JobState.DISPATCHED for job in jobs)


def test_a_pass_tells_only_so_many_why_and_those_first_who_know_nothing(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.placing._MOST_TOLD", 2)
    world.node(slots=1)
    jobs = [world.job(devices_per_node=2) for _ in range(5)]
    told = []
    for _ in range(4):
        assert run_step(world.engine, place_jobs, settings) == []
        told.append(sum(world.read(job).wait_reason is not None for job in jobs))
    assert told == [2, 4, 5, 5]


def test_what_is_new_is_told_first_to_those_that_know_nothing(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.node(slots=1)
    jobs = [world.job(devices_per_node=3) for _ in range(3)]
    run_step(world.engine, place_jobs, settings)
    before = {world.read(job).wait_reason for job in jobs}
    world.node("larger", slots=3)
    small = world.job(priority=5, devices_per_node=2)
    late = [world.job(devices_per_node=3, priority=-1) for _ in range(2)]
    monkeypatch.setattr("scheduler.placing._MOST_TOLD", 2)
    run_step(world.engine, place_jobs, settings)
    assert world.read(small).state is JobState.DISPATCHED
    assert all(world.read(job).wait_reason not in {None, *before} for job in late)
    assert {world.read(job).wait_reason for job in jobs} == before


def test_priority_goes_first_then_the_one_that_waits_longest(world: World, settings: Settings) -> None:
    world.node(slots=1)
    early, _, urgent = world.job(), world.job(), world.job(priority=5)
    assert placed_job(world, settings) == urgent
    assert placed_job(world, settings) == early


def placed_job(world: World, settings: Settings) -> str:
    (offer,) = run_step(world.engine, place_jobs, settings)
    claimed = world.claim(offer)
    assert claimed is not None
    assert world.finish(claimed, Outcome.SUCCEEDED, result={})
    return claimed.job_id


def test_a_waiting_job_tells_why(world: World, settings: Settings) -> None:
    world.node(slots=2)
    job = world.job(devices_per_node=3)
    run_step(world.engine, place_jobs, settings)
    assert world.read(job).wait_reason == "needs 3 of type any on one node; no node has that"
    world.node(slots=3)
    run_step(world.engine, place_jobs, settings)
    assert (world.read(job).state, world.read(job).wait_reason) == (JobState.DISPATCHED, None)


def test_only_reasons_that_have_changed_are_written(world: World, settings: Settings) -> None:
    world.node(slots=1)
    world.job(devices_per_node=2)

    def version() -> object:
        run_step(world.engine, place_jobs, settings)
        with transaction(world.engine) as session:
            return session.scalar(text("select xmin::text from jobs"))

    first = version()
    assert version() == first
    world.node("node-1", slots=2)
    assert version() != first


@pytest.mark.parametrize("state", [NodeState.SUSPECT, NodeState.DRAINING, NodeState.LOST])
def test_only_a_ready_node_gets_work(world: World, settings: Settings, state: NodeState) -> None:
    world.node()
    with transaction(world.engine) as session:
        session.execute(update(NodeRow).values(state=state))
    job = world.job()
    assert run_step(world.engine, place_jobs, settings) == []
    assert world.read(job).wait_reason is not None


def test_the_message_reaches_the_nodes_own_queue_after_the_commit(
    world: World, settings: Settings, queue: redis.Redis
) -> None:
    world.node()
    job = world.job()
    scheduler(world, settings).step()
    assert world.read(job).state is JobState.DISPATCHED
    ((allocation_id, seq),) = messages(queue)
    claimed = world.claim(Offer(str(allocation_id), int(str(seq)), "node-0"))
    assert claimed is not None
    assert claimed.job_id == job


def test_a_lost_message_is_made_anew_under_a_new_number(world: World, settings: Settings) -> None:
    world.node()
    old = world.offer(world.job())
    assert silence(world, settings) == [], "too young"
    age(world, 16)
    (new,) = silence(world, settings)
    assert (new.allocation_id, new.dispatch_seq) == (old.allocation_id, 2)
    assert world.claim(old) is None
    assert world.claim(new) is not None


def test_an_offer_never_answered_is_taken_back_and_its_node_is_suspect(
    world: World, settings: Settings
) -> None:
    incarnation = world.node()
    job = world.job()
    offer = world.offer(job)
    age(world, 31, attempt_s=31)
    assert silence(world, settings) == []
    assert (world.read(job).state, world.read(job).attempts_used) == (JobState.QUEUED, 0)
    assert world.attempts(job)[0].outcome is Outcome.INCOMPLETE
    assert world.slots() == ["free", "free"]
    assert world.claim(offer) is None
    run_step(world.engine, nodes.beat, "node-0", incarnation, reachable=True)
    assert world.node_row().state is NodeState.SUSPECT, "heard, but too soon"
    with transaction(world.engine) as session:
        session.execute(update(NodeRow).values(suspect_until=text("clock_timestamp()")))
    run_step(world.engine, nodes.beat, "node-0", incarnation, reachable=True)
    assert world.node_row().state is NodeState.READY


def test_a_queue_that_is_away_costs_only_time(world: World, settings: Settings) -> None:
    away = settings.model_copy(
        update={"redis_url": type(settings.redis_url)("redis+socket:///nowhere/redis.sock")}
    )
    world.node()
    job = world.job()
    scheduler(world, away).step()
    assert world.read(job).state is JobState.DISPATCHED
    age(world, 16)
    assert len(silence(world, settings)) == 1


def test_a_queue_that_takes_nothing_costs_only_time(
    world: World, settings: Settings, queue: redis.Redis
) -> None:
    world.node()
    first, connected = world.job(), scheduler(world, settings)
    connected.step()
    second = world.job()
    queue.config_set("maxmemory", 1)
    try:
        connected.step()
    finally:
        queue.config_set("maxmemory", 0)
    assert [world.read(job).state for job in (first, second)] == [JobState.DISPATCHED] * 2
    assert len(messages(queue)) == 1


def test_a_queue_that_hangs_does_not_hold_the_scheduler(world: World, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"
        hanging = settings.model_copy(update={"redis_url": type(settings.redis_url)(url)})
        world.node()
        job = world.job()
        step = Thread(target=scheduler(world, hanging).step, daemon=True)
        step.start()
        step.join(20)
        assert not step.is_alive()
    assert world.read(job).state is JobState.DISPATCHED


def test_a_job_that_somebody_holds_does_not_stop_the_others(world: World, settings: Settings) -> None:
    world.node()
    held, other = world.job(), world.job()
    for slot, job in enumerate((held, other)):
        world.offer(job, slots=(slot,))
        world.stop(job, StopReason.CANCEL)
    impatient = make_engine(settings.database_url.get_secret_value(), statement_timeout_s=0.2)
    with transaction(world.engine) as session:
        lock_job(session, held)
        scheduler(World(impatient), settings).step()
    impatient.dispose()
    assert world.read(other).state is JobState.CANCELLED
    assert world.read(held).state is JobState.STOPPING


def test_a_job_cancelled_before_a_node_answered_is_let_go(world: World, settings: Settings) -> None:
    world.node()
    job = world.job()
    offer = world.offer(job)
    world.stop(job, StopReason.CANCEL)
    assert world.claim(offer) is None
    scheduler(world, settings).step()
    assert world.read(job).state is JobState.CANCELLED
    assert world.slots() == ["free", "free"]
    assert world.claim(offer) is None


def test_cancel_and_claim_at_once_leave_no_job_behind(world: World, settings: Settings) -> None:
    world.node(slots=10)
    for slot in range(10):
        job = world.job()
        offer = world.offer(job, slots=(slot,))
        with ThreadPoolExecutor(2) as pool:
            claiming = pool.submit(world.claim, offer)
            pool.submit(world.stop, job, StopReason.CANCEL).result()
            claimed = claiming.result()
        scheduler(world, settings).step()
        if claimed is not None:
            assert world.read(job).state is JobState.STOPPING
            assert world.finish(claimed, Outcome.STOPPED)
        assert world.read(job).state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("outcome", "after"), [(Outcome.SUCCEEDED, JobState.DISPATCHED), (Outcome.FAILED, JobState.FAILED)]
)
def test_a_job_waits_for_its_base_and_fails_with_it(
    world: World, settings: Settings, outcome: Outcome, after: JobState
) -> None:
    claimed = world.running()
    waiting = world.job(JobState.VALIDATING_FILES, base_job_id=claimed.job_id)
    scheduler(world, settings).step()
    assert world.read(waiting).state is JobState.VALIDATING_FILES
    world.finish(claimed, outcome, result={})
    scheduler(world, settings).step()
    job = world.read(waiting)
    assert job.state is after
    if after is JobState.FAILED:
        assert job.error is not None
        assert job.error["code"] == "base_job_failed"
        assert claimed.job_id in job.error["message"]


def test_it_runs_through_an_outage_and_then_expires_after_a_whole_lease(
    world: World, settings: Settings
) -> None:
    fast = settings.model_copy(update={"time_scale": FAST})
    claimed = world.running(lease_s=0.0)
    stop = Event()
    thread = Thread(target=scheduler(world, fast).run, args=(stop,))
    rename(world, "jobs", "hidden")
    thread.start()
    try:
        failed = rollbacks(world)
        eventually(lambda: rollbacks(world) > failed)
        back_at = time.monotonic()
        rename(world, "hidden", "jobs")
        eventually(lambda: world.read(claimed.job_id).attempts_used == 1)
        assert time.monotonic() - back_at >= fast.scaled(fast.lease_s), "an outage is nobody's silence"
        eventually(lambda: world.node_row().state is NodeState.LOST)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_when_the_databases_clock_leaps_nobody_was_silent(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a host that slept: every lease is overdue at once, before its worker could renew."""
    shown = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(clock, "now", lambda session: shown)
    steps = scheduler(world, settings.model_copy(update={"reconcile_s": 0.0}))
    claimed = world.running()

    def watch(seconds: int) -> int:
        nonlocal shown
        for _ in range(0, seconds, 10):
            shown += timedelta(seconds=10)
            steps.step()
        return world.read(claimed.job_id).attempts_used

    assert watch(70) == 0
    shown += timedelta(hours=1)
    with transaction(world.engine) as session:
        session.execute(update(Allocation).values(lease_expires_at=clock.seconds_ago(3500)))
    assert watch(60) == 0
    assert watch(10) == 1, "whoever has not renewed a whole lease later was silent"


def rename(world: World, old: str, new: str) -> None:
    with transaction(world.engine) as session:
        session.execute(text(f"alter table {old} rename to {new}"))


def rollbacks(world: World) -> int:
    query = "select xact_rollback from pg_stat_database where datname = current_database()"
    with transaction(world.engine) as session:
        return int(session.scalar(text(query)) or 0)


def test_the_process_places_jobs_and_ends_when_told(world: World, settings: Settings) -> None:
    world.node()
    job = world.job()
    environment = {
        **os.environ,
        "THAW_DATABASE_URL": settings.database_url.get_secret_value(),
        "THAW_REDIS_URL": settings.redis_url.get_secret_value(),
        "THAW_STORE_URL": settings.store_url,
    }
    process = subprocess.Popen([sys.executable, "-m", "scheduler"], cwd=ROOT, env=environment)
    try:
        eventually(lambda: world.read(job).state is JobState.DISPATCHED, within_s=60)
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
