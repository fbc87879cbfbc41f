"""A job's checkpoints in the database: which is the newest, which go, which are left out, and who says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from checkpoint_rows import go_on_from, next_try, store
from dispatch_rows import World
from sqlalchemy import select, update
from supervised import resolved_job

from shared.db import checkpoints
from shared.db.engine import make_engine, transaction
from shared.db.leases import Claim
from shared.db.listed_checkpoints import list_checkpoints
from shared.db.models import Checkpoint
from shared.db.scope import Scope
from shared.db.steps import run_step
from shared.db.work import load_work
from shared.domain.events import ErrorReport
from shared.domain.job import JobState, Outcome, StopReason

RESOLVED: dict[str, Any] = {"target": {"source": "torchvision", "name": "resnet18", "hash": None}}


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    engine = make_engine(database_url)
    yield World(engine).found()
    engine.dispose()


def left_out(world: World, claimed: Claim, checkpoint_id: str) -> bool:
    return run_step(
        world.engine,
        checkpoints.leave_out,
        token=claimed.token,
        checkpoint_id=checkpoint_id,
        why="rotten",
        actor="node-0",
    )


def rows(world: World, job_id: str) -> dict[int, Checkpoint]:
    """The rows by step; a step that two attempts stored is not asked for here."""
    with transaction(world.engine) as session:
        return {
            row.step: row for row in session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id))
        }


def resumed_from(world: World, job_id: str) -> list[str | None]:
    return [attempt.resume_from for attempt in world.attempts(job_id)]


def steps_to_go_on_from(world: World, job_id: str) -> list[tuple[str, int]]:
    """(storage prefix, step), in the order in which they are tried."""
    with transaction(world.engine) as session:
        found = session.scalars(checkpoints.usable(job_id))
        return [(row.storage_prefix.partition("/")[0], row.step) for row in found]


def listed(world: World, job_id: str) -> list[tuple[int, bool, bool]]:
    """(step, is it the newest, is it the best) as people see them."""
    with transaction(world.engine) as session:
        page = list_checkpoints(Scope(session, "team-1"), job_id, after=None, limit=100)
        return [(one.row.step, one.is_newest, one.is_best) for one in page.rows]


def notes(world: World, job_id: str) -> list[str]:
    return [event.data["code"] for event in world.events(job_id) if event.type == "note"]


def test_an_older_step_that_arrives_late_does_not_move_the_newest_back(world: World) -> None:
    claimed = world.running()
    assert store(world, claimed, 9)
    assert store(world, claimed, 5)
    assert steps_to_go_on_from(world, claimed.job_id)[0] == (claimed.attempt_id, 9)


def test_an_old_token_moves_nothing(world: World) -> None:
    first = world.running()
    assert store(world, first, 5)
    second = next_try(world, first)
    kept = rows(world, first.job_id)[5].id

    assert not store(world, first, 99)
    assert not left_out(world, first, kept)
    assert not go_on_from(world, first, None)
    assert not store(world, Claim(**{**vars(second), "token": uuid4()}), 99)

    assert list(rows(world, first.job_id)) == [5]
    assert rows(world, first.job_id)[5].damaged_at is None
    assert steps_to_go_on_from(world, first.job_id) == [(first.attempt_id, 5)]
    assert resumed_from(world, first.job_id) == [None, kept]


def test_what_a_later_attempt_wrote_wins_over_a_newer_step_of_an_earlier_one(world: World) -> None:
    """The newest was damaged, so the second try went back to step 5, and wrote step 7 before it was lost."""
    first = world.running()
    for step in (5, 10):
        assert store(world, first, step)
    second = next_try(world, first)
    before = rows(world, first.job_id)
    assert left_out(world, second, before[10].id)
    assert go_on_from(world, second, before[5].id)
    assert store(world, second, 7)
    third = next_try(world, second)

    assert steps_to_go_on_from(world, first.job_id) == [(second.attempt_id, 7), (first.attempt_id, 5)]
    stored = rows(world, first.job_id)
    assert resumed_from(world, first.job_id) == [None, before[5].id, stored[7].id]
    assert store(world, third, 8)
    assert [step for step, _, _ in listed(world, first.job_id)] == [8, 7, 5]


def test_a_newer_step_of_an_earlier_attempt_loses_even_where_nobody_knows_that_it_is_damaged(
    world: World,
) -> None:
    first = world.running()
    for step in (5, 10):
        assert store(world, first, step)
    second = next_try(world, first)
    assert store(world, second, 7)
    next_try(world, second)
    assert [step for _, step in steps_to_go_on_from(world, first.job_id)] == [7, 10, 5]
    assert resumed_from(world, first.job_id)[2] == rows(world, first.job_id)[7].id


@pytest.mark.parametrize(
    ("limit", "kept"), [(None, [6, 5, 2]), (1, [6, 2]), (4, [6, 5, 4, 2]), (9, [6, 5, 4, 3, 2, 1])]
)
def test_the_newest_and_the_best_are_kept_and_what_else_the_limit_allows(
    world: World, limit: int | None, kept: list[int]
) -> None:
    asked = {} if limit is None else {"hyperparameters": {"save_total_limit": limit}}
    claimed = world.running(resolved={**RESOLVED, **asked})
    for step in range(1, 7):
        assert store(world, claimed, step, is_best=step in (1, 2))

    assert [step for step, _, _ in listed(world, claimed.job_id)] == kept
    assert [
        (step, newest, best) for step, newest, best in listed(world, claimed.job_id) if newest or best
    ] == [
        (6, True, False),
        (2, False, True),
    ]
    stored = rows(world, claimed.job_id)
    assert sorted(step for step, row in stored.items() if row.dropped_at is None) == sorted(kept)
    told = [id for e in world.events(claimed.job_id) if e.type == "checkpoint" for id in e.data["dropped"]]
    assert sorted(told) == sorted(row.id for row in stored.values() if row.dropped_at is not None)


def test_a_damaged_one_counts_for_nothing_and_goes_once_a_newer_one_is_whole(world: World) -> None:
    first = world.running(resolved={**RESOLVED, "hyperparameters": {"save_total_limit": 2}})
    for step in (1, 2):
        assert store(world, first, step, is_best=True)
    second = next_try(world, first)
    assert left_out(world, second, rows(world, first.job_id)[2].id)
    assert left_out(world, second, rows(world, first.job_id)[2].id), "told twice"

    assert listed(world, first.job_id) == [(2, False, False), (1, True, True)]
    assert notes(world, first.job_id) == ["damaged_checkpoint"]
    assert rows(world, first.job_id)[2].dropped_at is None

    assert store(world, second, 3)
    assert listed(world, first.job_id) == [(3, True, False), (1, False, True)]
    assert rows(world, first.job_id)[2].dropped_at is not None


def test_a_job_whose_every_checkpoint_is_damaged_starts_anew_and_is_told_so(world: World) -> None:
    first = world.running()
    assert go_on_from(world, first, None)
    assert notes(world, first.job_id) == [], "a first start is no news"
    for step in (1, 2):
        assert store(world, first, step)
    second = next_try(world, first)
    for row in rows(world, first.job_id).values():
        assert left_out(world, second, row.id)
    assert go_on_from(world, second, None)

    assert notes(world, first.job_id) == ["damaged_checkpoint", "damaged_checkpoint", "starts_anew"]
    assert world.events(first.job_id)[-1].level == "warn"
    assert resumed_from(world, first.job_id) == [None, None]


@pytest.mark.parametrize("code", ["damaged_checkpoint", "checkpoint_mismatch"])
@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST])
def test_a_checkpoint_that_the_trainer_refuses_is_left_out_and_no_try_is_used_up(
    world: World, code: str, outcome: Outcome
) -> None:
    first = world.running()
    for step in (1, 2):
        assert store(world, first, step)
    second = next_try(world, first)
    stored = rows(world, first.job_id)
    used = world.read(first.job_id).attempts_used
    report = ErrorReport(code=code, message="its state cannot be read", time=time.time())

    third = next_try(world, second, outcome, error=report)
    assert resumed_from(world, first.job_id) == [None, stored[2].id, stored[1].id]
    assert world.read(first.job_id).attempts_used == used
    assert world.finish(third, outcome, error=report)
    assert world.read(first.job_id).state is JobState.QUEUED
    assert notes(world, first.job_id) == ["damaged_checkpoint", "damaged_checkpoint"]

    fourth = world.claim(world.offer(first.job_id))
    assert fourth is not None
    assert resumed_from(world, first.job_id)[3] is None
    assert world.finish(fourth, outcome, error=report)
    ended = world.read(first.job_id)
    assert ended.attempts_used == used + (outcome is Outcome.LOST), "it went on from nothing that could go"
    assert ended.state is (JobState.FAILED if outcome is Outcome.FAILED else JobState.QUEUED)


def test_a_job_that_was_asked_to_stop_stops_though_its_checkpoint_is_refused(world: World) -> None:
    first = world.running()
    assert store(world, first, 1)
    second = next_try(world, first)
    world.stop(first.job_id, StopReason.CANCEL)
    report = ErrorReport(code="damaged_checkpoint", message="rotten", time=time.time())
    assert world.finish(second, Outcome.FAILED, error=report)
    assert world.read(first.job_id).state is JobState.CANCELLED


def test_a_manifest_that_cannot_be_read_is_known_before_anything_is_fetched(world: World) -> None:
    claimed = world.running(**resolved_job())
    assert store(world, claimed, 1)
    with transaction(world.engine) as session:
        session.execute(update(Checkpoint).values(manifest={"epoch": "x"}))
        work = load_work(session, claimed.token)
    assert [point.manifest for point in work.checkpoints] == [None]
