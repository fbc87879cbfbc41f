"""Pause, preempt, resume on real rows: where a job goes, what it keeps, and its place in the queue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dispatch_rows import World

from scheduler.placing import place_jobs
from shared.db import leases, reconcile
from shared.db.engine import make_engine, transaction
from shared.db.history import lock_job
from shared.db.steps import run_step
from shared.db.stops import ask_to_stop, go_on
from shared.domain.errors import Conflict
from shared.domain.job import JobState, Outcome, StopReason
from shared.settings import Settings


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    engine = make_engine(database_url)
    yield World(engine).found()
    engine.dispose()


def ask(world: World, job_id: str, reason: StopReason) -> None:
    with transaction(world.engine) as session:
        ask_to_stop(session, lock_job(session, job_id), reason, actor="somebody")


def resume(world: World, job_id: str) -> None:
    with transaction(world.engine) as session:
        go_on(session, lock_job(session, job_id), actor="somebody")


def placed(world: World, settings: Settings) -> list[str]:
    """The jobs that one scheduling pass places, in their order."""
    offers = run_step(world.engine, place_jobs, settings)
    with transaction(world.engine) as session:
        claims = [
            leases.claim(
                session,
                allocation_id=offer.allocation_id,
                dispatch_seq=offer.dispatch_seq,
                node_id=offer.node_id,
                incarnation=world.incarnations[offer.node_id],
                lease_s=60.0,
            )
            for offer in offers
        ]
    return [claim.job_id for claim in claims if claim is not None]


def history(world: World, job_id: str) -> list[tuple[object, object, object, str]]:
    """(old, new, stop reason, actor) of each change of state."""
    return [
        (event.data["old"], event.data["new"], event.data.get("stop_reason"), event.actor)
        for event in world.events(job_id)
        if event.type == "state"
    ]


@pytest.mark.parametrize(
    ("reason", "after"),
    [
        (StopReason.PAUSE, JobState.PAUSED),
        (StopReason.PREEMPT, JobState.QUEUED),
        (StopReason.DRAIN, JobState.QUEUED),
        (StopReason.CANCEL, JobState.CANCELLED),
    ],
)
def test_a_running_job_leaves_its_slots_and_uses_up_no_attempt(
    world: World, reason: StopReason, after: JobState
) -> None:
    claimed = world.running()
    ask(world, claimed.job_id, reason)
    ask(world, claimed.job_id, reason)
    assert world.read(claimed.job_id).state is JobState.STOPPING
    assert world.slots()[0] == "held", "until its node has said that it is gone"
    assert world.finish(claimed, Outcome.STOPPED)
    job = world.read(claimed.job_id)
    assert (job.state, job.stop_reason, job.attempts_used) == (after, None, 0)
    assert world.slots() == ["free", "free"]
    asked, gone = history(world, job.id)[-2:]
    assert asked == ("running", "stopping", reason, "somebody")
    assert gone == ("stopping", after, None, "node-0")


def test_a_job_that_waits_is_paused_at_once_and_is_not_placed(world: World, settings: Settings) -> None:
    world.node()
    job = world.job()
    ask(world, job, StopReason.PAUSE)
    assert world.read(job).state is JobState.PAUSED
    assert placed(world, settings) == []
    resume(world, job)
    assert placed(world, settings) == [job]
    assert [entry[:2] for entry in history(world, job)][-4:] == [
        ("queued", "paused"),
        ("paused", "queued"),
        ("queued", "dispatched"),
        ("dispatched", "running"),
    ]


def test_a_pause_before_a_node_has_answered_takes_the_offer_back(world: World) -> None:
    world.node()
    job = world.job()
    offer = world.offer(job)
    ask(world, job, StopReason.PAUSE)
    assert world.claim(offer) is None
    for token in run_step(world.engine, reconcile.stopped_offers):
        assert run_step(world.engine, reconcile.withdraw, token)
    assert (world.read(job).state, world.read(job).attempts_used) == (JobState.PAUSED, 0)
    assert world.slots() == ["free", "free"]


def test_a_cancel_takes_the_place_of_a_pause_and_says_so(world: World) -> None:
    claimed = world.running()
    ask(world, claimed.job_id, StopReason.PAUSE)
    ask(world, claimed.job_id, StopReason.CANCEL)
    note = world.events(claimed.job_id)[-1]
    assert (note.actor, note.data) == ("somebody", {"stop_reason": "cancel", "instead_of": "pause"})
    with pytest.raises(Conflict, match="is being cancelled"):
        ask(world, claimed.job_id, StopReason.PAUSE)
    assert world.finish(claimed, Outcome.STOPPED)
    assert world.read(claimed.job_id).state is JobState.CANCELLED


def test_a_paused_job_lost_in_between_is_paused_and_the_try_counts(world: World) -> None:
    claimed = world.running()
    ask(world, claimed.job_id, StopReason.PAUSE)
    assert world.finish(claimed, Outcome.LOST)
    job = world.read(claimed.job_id)
    assert (job.state, job.attempts_used) == (JobState.PAUSED, 1)


def test_a_resumed_job_waits_behind_the_others(world: World, settings: Settings) -> None:
    world.node(slots=1)
    first, second = world.job(), world.job()
    ask(world, first, StopReason.PAUSE)
    resume(world, first)
    assert placed(world, settings) == [second]


def test_a_drained_job_keeps_its_place(world: World, settings: Settings) -> None:
    claimed = world.running()
    world.job()
    ask(world, claimed.job_id, StopReason.DRAIN)
    assert world.finish(claimed, Outcome.STOPPED)
    assert placed(world, settings)[0] == claimed.job_id


def test_a_preempted_job_lets_others_have_its_slots_even_with_a_higher_priority(
    world: World, settings: Settings
) -> None:
    world.node(slots=1)
    claimed = world.running(priority=9)
    waiting = world.job()
    ask(world, claimed.job_id, StopReason.PREEMPT)
    assert world.finish(claimed, Outcome.STOPPED)
    assert "handed its slots to others" in (world.read(claimed.job_id).wait_reason or "")
    assert placed(world, settings) == [waiting]


def test_a_preempted_job_is_not_placed_at_once_and_then_behind_those_that_waited(
    world: World, settings: Settings
) -> None:
    world.node(slots=1)
    claimed = world.running()
    waiting = world.job()
    ask(world, claimed.job_id, StopReason.PREEMPT)
    assert world.finish(claimed, Outcome.STOPPED)
    a_while_later = settings.model_copy(update={"time_scale": 1e-6, "node_heartbeat_s": 5e6})
    assert placed(world, a_while_later) == [waiting]

    world.node("node-1", slots=1)
    assert placed(world, settings) == [], "not in a circle"
    assert placed(world, a_while_later) == [claimed.job_id]


def test_a_job_that_waited_for_its_base_waits_for_it_again(world: World) -> None:
    base = world.running()
    job = world.job(JobState.VALIDATING_FILES, base_job_id=base.job_id, wait_reason="waits")
    ask(world, job, StopReason.PAUSE)
    assert (world.read(job).state, world.read(job).wait_reason) == (JobState.PAUSED, None)
    assert list(run_step(world.engine, reconcile.waiting_for_base)) == []
    resume(world, job)
    row = world.read(job)
    assert (row.state, row.wait_reason) == (
        JobState.VALIDATING_FILES,
        f"waits for the model of job {base.job_id}",
    )
    ask(world, job, StopReason.PAUSE)
    assert world.finish(base, Outcome.SUCCEEDED, result={})
    resume(world, job)
    assert world.read(job).state is JobState.QUEUED
