"""Claim, renew, report, finish: who may write for a job, and what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest
from dispatch_rows import LEASE_S, World
from sqlalchemy import select
from waiting import eventually

from shared.db import leases, nodes, reconcile
from shared.db.engine import make_engine, transaction
from shared.db.leases import Claim, Renewal, StoredArtifact
from shared.db.models import Artifact, Checkpoint, Metric
from shared.db.steps import run_step
from shared.domain.events import (
    CheckpointLine,
    CheckpointManifest,
    ErrorReport,
    NoteLine,
    PhaseLine,
    TrainLine,
    ValidationLine,
)
from shared.domain.job import (
    AllocationState,
    AttemptState,
    JobState,
    NodeState,
    Outcome,
    StopReason,
)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    engine = make_engine(database_url, pool_size=20)
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


def write(world: World, claimed: Claim, *lines: object) -> bool:
    return run_step(world.engine, leases.write_progress, token=claimed.token, lines=lines, actor="node-0")


def train_line(step: int = 1, loss: float = 0.5) -> TrainLine:
    return TrainLine(
        time=time.time(),
        epoch=0,
        n_epochs=1,
        step=step,
        total_steps=9,
        loss=loss,
        accuracy=0.5,
        learning_rate=0.1,
        samples_per_s=10,
        eta_s=None,
    )


def checkpoint(world: World, claimed: Claim, step: int) -> bool:
    manifest = CheckpointManifest(epoch=1, step=step, is_best=True, metrics={"loss": 0.5}, files=[])
    return run_step(
        world.engine,
        leases.add_checkpoint,
        token=claimed.token,
        manifest=manifest,
        storage_prefix=f"checkpoints/{step}",
        actor="node-0",
    )


def lose(world: World, claimed: Claim) -> None:
    """Let the reconciler expire the claim, whose lease must be over."""
    assert claimed.token in run_step(world.engine, reconcile.expired_leases)
    assert run_step(world.engine, reconcile.expire, claimed.token)


def test_of_fifty_racing_claims_one_wins_each_round(world: World) -> None:
    world.node(slots=5)
    for slot in range(5):
        job_id = world.job()
        offer = world.offer(job_id, slots=(slot,))
        with ThreadPoolExecutor(10) as pool:
            claims = list(pool.map(world.claim, [offer] * 50))
        assert len([one for one in claims if one is not None]) == 1
        assert world.attempts(job_id)[0].claimed == 1


def test_a_claim_starts_the_job_and_tells_how(world: World) -> None:
    world.node()
    job_id = world.job(devices_per_node=2)
    claimed = world.claim(world.offer(job_id, slots=(0, 1)))
    assert claimed is not None
    assert (claimed.job_id, claimed.slots, claimed.attempt_number) == (job_id, [0, 1], 1)
    assert (claimed.master_addr, claimed.master_port) == ("127.0.0.1", 29500)
    assert claimed.attempt_running
    assert run_step(world.engine, leases.attempt_is_running, claimed.token) is True
    assert world.read(job_id).state is JobState.RUNNING
    offered, running = (event.data for event in world.events(job_id)[-2:])
    assert (offered["attempt"], offered["node"], offered["slots"]) == (1, "node-0", [0, 1])
    assert (running["new"], running["attempt"], running["node"]) == ("running", 1, "node-0")


def test_a_claim_tried_again_finds_its_own_success(world: World) -> None:
    world.node()
    offer, claim_id = world.offer(world.job()), uuid4()
    first = world.claim(offer, claim_id=claim_id)
    assert first is not None
    assert world.claim(offer, claim_id=claim_id) == first
    assert world.claim(offer, claim_id=uuid4()) is None, "the same message delivered twice"


def test_an_old_message_and_an_old_worker_claim_nothing(world: World) -> None:
    world.node()
    offer = world.offer(world.job())
    assert world.claim(replace(offer, dispatch_seq=0)) is None
    with transaction(world.engine) as session:
        claimed = leases.claim(
            session,
            allocation_id=offer.allocation_id,
            dispatch_seq=offer.dispatch_seq,
            node_id="node-0",
            incarnation=uuid4(),
            lease_s=LEASE_S,
        )
    assert claimed is None
    assert world.claim(offer) is not None


def test_a_renewal_holds_the_lease_and_tells_of_a_stop(world: World) -> None:
    claimed = world.running(lease_s=0.0)
    assert renew(world, claimed) == Renewal(stop_reason=None, ending=False)
    assert run_step(world.engine, reconcile.expired_leases) == []
    world.stop(claimed.job_id, StopReason.CANCEL)
    assert renew(world, claimed) == Renewal(stop_reason=StopReason.CANCEL, ending=False)


def test_an_expired_lease_frees_the_job_and_leaves_the_slot_dirty(world: World) -> None:
    claimed = world.running(lease_s=0.0)
    lose(world, claimed)
    job = world.read(claimed.job_id)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 1)
    assert world.slots() == ["dirty", "free"]
    assert world.allocation(claimed.allocation_id).state is AllocationState.EXPIRED
    attempt = world.attempts(job.id)[0]
    assert (attempt.state, attempt.outcome) == (AttemptState.ENDED, Outcome.LOST)
    second = world.claim(world.offer(job.id, slots=(1,)))
    assert second is not None
    assert second.attempt_number == 2


def test_a_stale_token_writes_nothing(world: World) -> None:
    claimed = world.running(lease_s=0.0)
    lose(world, claimed)
    n_events = len(world.events(claimed.job_id))
    assert renew(world, claimed) is None
    assert run_step(world.engine, leases.attempt_is_running, claimed.token) is None
    assert not write(world, claimed, train_line())
    assert not checkpoint(world, claimed, 1)
    artifact = StoredArtifact("model.safetensors", "k", 1, "ab")
    assert not world.finish(claimed, Outcome.SUCCEEDED, result={"a": 1}, artifacts=(artifact,))
    job = world.read(claimed.job_id)
    assert (job.state, job.result, job.progress) == (JobState.QUEUED, None, None)
    with transaction(world.engine) as session:
        assert session.scalars(select(Metric)).all() == []
        assert session.scalars(select(Checkpoint)).all() == []
        assert session.scalars(select(Artifact)).all() == []
    assert len(world.events(claimed.job_id)) == n_events


def test_progress_becomes_metrics_events_and_the_latest_figures(world: World) -> None:
    claimed = world.running()
    validation = ValidationLine(
        time=1.0,
        epoch=0,
        step=2,
        loss=0.4,
        accuracy=0.9,
        metrics={"accuracy": 0.9},
        main_metric="accuracy",
        n_samples=7,
        is_best=True,
    )
    note = NoteLine(time=1.0, level="warn", code="skipped", message="one picture", data={"n": 1})
    done = CheckpointLine(time=1.0, epoch=1, step=2, folder="c", is_best=True, metrics={})
    lines = (PhaseLine(phase="training", time=1.0), train_line(1), train_line(2), validation, note, done)
    assert write(world, claimed, *lines)
    job = world.read(claimed.job_id)
    assert job.progress is not None
    assert job.progress["phase"] == "training"
    assert job.progress["train"]["step"] == 2
    assert job.progress["validation"]["accuracy"] == 0.9
    assert job.started_at is not None
    assert job.trained_at is not None
    assert job.trained_at >= job.started_at
    with transaction(world.engine) as session:
        kinds = session.scalars(select(Metric.kind).order_by(Metric.id)).all()
    assert kinds == ["train", "train", "validation"]
    told = world.events(job.id)[-3:]
    seen = [(event.type, event.level) for event in told]
    assert seen == [("phase", "info"), ("metrics", "info"), ("note", "warn")]
    assert told[1].message == "Epoch 1: held-out accuracy 0.9000, loss 0.4000"


def test_a_figure_that_is_no_number_is_stored_as_null(world: World) -> None:
    claimed = world.running()
    assert write(world, claimed, train_line(loss=float("nan")))
    progress = world.read(claimed.job_id).progress
    assert progress is not None
    assert progress["train"]["loss"] is None


def test_a_text_with_a_nul_is_stored_and_hides_no_cause(world: World) -> None:
    claimed = world.running()
    note = NoteLine(
        time=time.time(), level="warn", code="c", message="a\0b", data={"files": ["x\0.png"], "k\0": 1}
    )
    assert write(world, claimed, note)
    event = world.events(claimed.job_id)[-1]
    assert (event.message, event.data) == ("a�b", {"code": "c", "files": ["x�.png"], "k�": 1})
    error = ErrorReport(code="internal", message="it broke\0here", traceback="log\0end", time=time.time())
    assert world.finish(claimed, Outcome.FAILED, error=error)
    job = world.read(claimed.job_id)
    assert job.error is not None
    assert (job.error["message"], job.error["traceback"]) == ("it broke�here", "log�end")
    assert world.events(claimed.job_id)[-1].message == "it broke�here"


def test_a_checkpoint_is_stored_once(world: World) -> None:
    claimed = world.running()
    assert checkpoint(world, claimed, 5)
    assert checkpoint(world, claimed, 5)
    assert [event.type for event in world.events(claimed.job_id)].count("checkpoint") == 1


def test_success_stores_the_result_and_may_be_told_twice(world: World) -> None:
    claimed = world.running()
    artifact = StoredArtifact("model.safetensors", "jobs/model", 10, "ab")
    for _ in range(2):
        assert world.finish(claimed, Outcome.SUCCEEDED, result={"accuracy": 1}, artifacts=(artifact,))
    job = world.read(claimed.job_id)
    assert (job.state, job.result, job.attempts_used) == (JobState.SUCCEEDED, {"accuracy": 1}, 0)
    assert job.finished_at is not None
    assert world.slots() == ["free", "free"]
    assert [event.data.get("new") for event in world.events(job.id)].count("succeeded") == 1
    assert not world.finish(claimed, Outcome.LOST), "another word than the first"


def test_a_success_counts_although_a_stop_was_asked(world: World) -> None:
    claimed = world.running()
    world.stop(claimed.job_id, StopReason.CANCEL)
    assert world.finish(claimed, Outcome.SUCCEEDED, result={})
    assert world.read(claimed.job_id).state is JobState.SUCCEEDED


def test_a_failure_is_the_users_and_is_not_tried_again(world: World) -> None:
    claimed = world.running()
    error = ErrorReport(code="bad_data", message="no picture could be read", time=1.0)
    assert world.finish(claimed, Outcome.FAILED, error=error, clean=False)
    job = world.read(claimed.job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["message"]) == ("bad_data", "no picture could be read")
    assert world.slots() == ["dirty", "free"]


@pytest.mark.parametrize(
    ("reason", "after"),
    [
        (StopReason.CANCEL, JobState.CANCELLED),
        (StopReason.PAUSE, JobState.PAUSED),
        (StopReason.PREEMPT, JobState.QUEUED),
        (StopReason.DRAIN, JobState.QUEUED),
    ],
)
def test_a_stopped_job_goes_where_its_reason_says(world: World, reason: StopReason, after: JobState) -> None:
    claimed = world.running()
    world.stop(claimed.job_id, reason)
    assert world.finish(claimed, Outcome.STOPPED)
    job = world.read(claimed.job_id)
    assert (job.state, job.stop_reason, job.attempts_used) == (after, None, 0)
    told = world.events(claimed.job_id)[-1]
    assert told.data == {
        "old": "stopping",
        "new": after,
        "reason": told.message,
        "attempt": 1,
        "outcome": "stopped",
    }


def test_the_last_lost_try_fails_the_job_and_says_how_many_there_were(world: World) -> None:
    claimed = world.running(max_attempts=2)
    assert world.finish(claimed, Outcome.LOST)
    assert world.read(claimed.job_id).state is JobState.QUEUED
    second = world.claim(world.offer(claimed.job_id))
    assert second is not None
    assert world.finish(second, Outcome.LOST)
    job = world.read(claimed.job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert "2 of 2" in job.error["message"]


def test_the_last_lost_try_gives_its_own_reason_to_the_job_and_to_the_event(world: World) -> None:
    claimed = world.running(max_attempts=2)
    assert world.finish(claimed, Outcome.LOST)
    second = world.claim(world.offer(claimed.job_id))
    assert second is not None
    killed = ErrorReport(
        code="host_out_of_memory", message="the kernel killed rank 1", traceback="log", rank=1, time=1.0
    )
    assert world.finish(second, Outcome.LOST, error=killed)

    job, last = world.read(claimed.job_id), world.events(claimed.job_id)[-1]
    assert job.error is not None
    assert job.error["message"] == "2 of 2 tries were lost; the last: the kernel killed rank 1"
    assert (job.error["code"], job.error["rank"], job.error["attempt"]) == ("host_out_of_memory", 1, 2)
    assert job.error["traceback"] == "log"
    assert "batch_size" in job.error["hint"], "the table's, where there is no other"
    assert last.data["error"] == job.error
    assert world.attempts(claimed.job_id)[0].error is None, "of that try nothing was told"


def test_the_time_that_a_try_has_run_never_goes_back(world: World) -> None:
    claimed = world.running()
    for ran_s in (5.0, 12.5, 9.0):
        told = {"token": claimed.token, "lines": [], "actor": "node-0", "ran_s": ran_s}
        assert run_step(world.engine, leases.write_progress, **told)
    assert world.attempts(claimed.job_id)[0].ran_s == 12.5


@pytest.mark.parametrize(
    ("code", "after"),
    [
        ("supervisor_failed", NodeState.SUSPECT),
        ("disk_full", NodeState.SUSPECT),
        ("worker_lost", NodeState.READY),
    ],
)
def test_a_node_whose_own_program_failed_gets_no_offer_for_a_while(
    world: World, code: str, after: NodeState
) -> None:
    claimed = world.running()
    error = ErrorReport(code=code, message="no room on the disk", time=time.time())
    assert world.finish(claimed, Outcome.LOST, error=error, suspect_s=0.5)
    assert world.node_row().state is after
    incarnation = world.incarnations["node-0"]
    assert run_step(world.engine, nodes.beat, "node-0", incarnation, reachable=True)
    assert world.node_row().state is after, "to be heard of is not enough"

    def is_ready() -> bool:
        run_step(world.engine, nodes.beat, "node-0", incarnation, reachable=True)
        return world.node_row().state is NodeState.READY

    eventually(is_ready, within_s=5)


def test_a_job_lost_while_it_is_cancelled_is_cancelled(world: World) -> None:
    claimed = world.running(lease_s=0.0)
    world.stop(claimed.job_id, StopReason.CANCEL)
    lose(world, claimed)
    assert world.read(claimed.job_id).state is JobState.CANCELLED


def test_an_incomplete_gang_uses_up_no_try(world: World) -> None:
    claimed = world.running()
    assert world.finish(claimed, Outcome.INCOMPLETE)
    job = world.read(claimed.job_id)
    assert (job.state, job.attempts_used) == (JobState.QUEUED, 0)
