"""What jobs held, as the database sums it up: exact, by whom and when, and how much of it was in vain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any
from uuid import uuid4

import pytest
from checkpoint_rows import go_on_from, next_try, store
from dispatch_rows import World
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, text, update
from sqlalchemy.orm import Session

from shared.db import leases
from shared.db.clock import now
from shared.db.engine import make_engine, transaction
from shared.db.leases import StoredArtifact
from shared.db.models import Allocation, ApiKey, Attempt, Checkpoint, Job, Team
from shared.db.steps import run_step
from shared.db.usage import used
from shared.domain.job import Outcome, StopReason
from shared.domain.usage import Group, Window

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALL_GROUPS = [tuple(chosen) for n in range(5) for chosen in combinations(Group, n)]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    engine = make_engine(database_url)
    yield World(engine).found()
    engine.dispose()


@dataclass(frozen=True)
class Held:
    """An allocation as the test drew it; microseconds from midnight, `end` None while it goes on."""

    start: int
    end: int | None
    slots: int
    team: str
    person: str
    model: str
    accelerator: str
    outcome: Outcome | None
    kept: int | None
    is_over: bool


DAY_US = 24 * 3600 * 1_000_000
moments = st.integers(-DAY_US, 3 * DAY_US) | st.sampled_from([0, DAY_US, 2 * DAY_US])


@st.composite
def allocations(draw: st.DrawFn) -> Held:
    start = draw(moments)
    end = draw(st.none() | moments.filter(lambda moment: moment >= start))
    over = end is not None and draw(st.booleans())
    return Held(
        start=start,
        end=end,
        slots=draw(st.integers(1, 8)),
        team=draw(st.sampled_from(["team-1", "team-2"])),
        person=draw(st.sampled_from(["key-1", "key-2"])),
        model=draw(st.sampled_from(["resnet18", "vit_b_16"])),
        accelerator=draw(st.sampled_from(["cpu", "NVIDIA H100"])),
        outcome=None if end is None else draw(st.sampled_from(Outcome)),
        kept=draw(st.none() | moments),
        is_over=over,
    )


def at(microseconds: int) -> datetime:
    return MIDNIGHT + timedelta(microseconds=microseconds)


def write(session: Session, drawn: Sequence[Held]) -> None:
    """The rows of these allocations, each of a job of its own."""
    jobs: list[dict[str, Any]] = []
    attempts: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for number, held in enumerate(drawn):
        ended_at = None if held.end is None else at(held.end)
        jobs.append(
            {
                "id": f"ftjob-{number}",
                "team_id": held.team,
                "created_by": held.person,
                "state": "cancelled" if held.is_over else "paused",
                "finished_at": ended_at if held.is_over else None,
                "model": held.model,
                "training_file_id": "file-1",
                "spec": {},
                "resolved": {},
                "freeze_plan": {},
                "devices_per_node": 1,
                "nodes": 1,
                "accelerator": "any",
                "max_attempts": 3,
            }
        )
        attempts.append(
            {
                "id": f"attempt-{number}",
                "job_id": f"ftjob-{number}",
                "number": 1,
                "state": "running" if held.end is None else "ended",
                "nodes": 1,
                "lease_token": uuid4(),
                "master_addr": "h",
                "master_port": 1,
                "outcome": held.outcome,
                "ended_at": ended_at,
                "kept_until": None if held.kept is None else at(held.kept),
            }
        )
        rows.append(
            {
                "id": f"alloc-{number}",
                "attempt_id": f"attempt-{number}",
                "node_id": "node-0",
                "node_rank": 0,
                "slots": list(range(held.slots)),
                "accelerator": held.accelerator,
                "state": "claimed" if held.end is None else "ended",
                "claimed_at": at(held.start),
                "ended_at": ended_at,
            }
        )
    if rows:
        for table, values in ((Job, jobs), (Attempt, attempts), (Allocation, rows)):
            session.execute(insert(table), values)


def plainly(
    drawn: Sequence[Held], groups: Sequence[Group], team: str | None, start: int, end: int, present: int
) -> dict[tuple[str, ...], list[int]]:
    """Group -> [slot-microseconds, of them wasted, jobs], one allocation and one day after the other."""
    sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    for held in drawn:
        if team not in (None, held.team):
            continue
        began, until = max(held.start, start), min(present if held.end is None else held.end, end)
        wasted_from = until
        if held.end is not None and held.outcome is not Outcome.SUCCEEDED:
            if held.kept is not None:
                wasted_from = held.kept
            elif held.is_over:
                wasted_from = held.start
        days = [(-1, 4)] if Group.DAY not in groups else [(day, day + 1) for day in range(-1, 4)]
        for first, after in days:
            low, high = max(began, first * DAY_US), min(until, after * DAY_US)
            if low >= high:
                continue
            name = {Group.TEAM: held.team, Group.PERSON: held.person, Group.MODEL: held.model}
            name[Group.DAY] = at(first * DAY_US).strftime("%Y-%m-%d")
            entry = sums[(*(name[group] for group in groups), held.accelerator)]
            entry[0] += held.slots * (high - low)
            entry[1] += held.slots * max(0, high - max(low, wasted_from))
            entry[2] += 1
    return dict(sums)


def test_sums_are_those_of_a_plain_loop_over_intervals(world: World) -> None:
    world.node()
    with transaction(world.engine) as session:
        session.add(Team(id="team-2", name="two"))
        session.flush()
        session.add(ApiKey(id="key-2", team_id="team-2", name="l", role="member", prefix="t", sha256="1"))

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(allocations(), max_size=12),
        st.sampled_from(ALL_GROUPS),
        st.sampled_from([None, "team-1"]),
        st.tuples(moments, moments).filter(lambda pair: pair[0] < pair[1]),
        st.integers(0, 4 * DAY_US),
    )
    def same(
        drawn: list[Held],
        groups: tuple[Group, ...],
        team: str | None,
        span: tuple[int, int],
        present: int,
    ) -> None:
        asked = Window(at(span[0]), at(span[1]))
        with Session(world.engine) as session:
            write(session, drawn)
            found = used(session, asked, groups, team_id=team, now=at(present))
        said = {
            (*(_name(row, group) for group in groups), row.accelerator): [
                row.slot_seconds * 1_000_000,
                row.wasted_slot_seconds * 1_000_000,
                row.n_jobs,
            ]
            for row in found
        }
        assert said == plainly(drawn, groups, team, *span, present), (drawn, groups, span, present)

    same()


def _name(row: Any, group: Group) -> str:
    value = getattr(row, group.value)
    return str(getattr(value, "id", value))


def test_a_window_of_a_few_days_is_read_by_the_index(world: World) -> None:
    world.node()
    with transaction(world.engine) as session:
        drawn = [
            Held(n * DAY_US // 10, n * DAY_US // 10 + 10, 1, "team-1", "key-1", "m", "cpu", None, None, True)
            for n in range(3000)
        ]
        write(session, drawn)
        session.execute(text("update attempts set outcome = 'succeeded'"))
        session.execute(text("analyze allocations"))
        scanned = _plan(session, Window(at(200 * DAY_US), at(203 * DAY_US)))
    assert "ix_allocations_ended_at" in scanned
    assert "ix_allocations_lease" in scanned
    assert "Seq Scan on allocations" not in scanned


def _plan(session: Session, asked: Window) -> str:
    """How Postgres reads what `used` asks for."""
    connection = session.connection()
    seen: list[str] = []
    real = connection.execute

    class Explaining:
        def execute(self, query: Any) -> Any:
            compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
            lines = real(text(f"explain {compiled}".replace(":", "\\:"))).scalars().all()
            seen.append("\n".join(lines))
            return real(query)

    used(Explaining(), asked, (Group.TEAM,), team_id=None, now=asked.end)  # type: ignore[arg-type]  # no more of a session is used
    return seen[0]


def sums(engine: Engine) -> tuple[Decimal, Decimal]:
    """All that was held ever, and of it what was in vain."""
    with transaction(engine) as session:
        current = now(session)
        found = used(session, Window(MIDNIGHT, current), (), team_id=None, now=current)
    (row,) = found or [None]
    return (row.slot_seconds, row.wasted_slot_seconds) if row else (Decimal(0), Decimal(0))


def spread(world: World, job_id: str) -> None:
    """Let try n of the job have held its slot from hour 2n to 2n + 1; its checkpoints come half-way."""
    for attempt in world.attempts(job_id):
        begins = MIDNIGHT + 2 * attempt.number * HOUR
        ends = begins + HOUR if attempt.ended_at else None
        with transaction(world.engine) as session:
            session.execute(
                update(Allocation)
                .where(Allocation.attempt_id == attempt.id)
                .values(claimed_at=begins, ended_at=ends)
            )
            session.execute(
                update(Attempt).where(Attempt.id == attempt.id).values(created_at=begins, ended_at=ends)
            )
            session.execute(
                update(Checkpoint)
                .where(Checkpoint.attempt_id == attempt.id)
                .values(created_at=begins + HOUR / 2)
            )


def hours(world: World, job_id: str) -> dict[int, float]:
    """The hours in vain by the number of the try, of those that have ended."""
    found: dict[int, float] = {}
    for attempt in world.attempts(job_id):
        begins = MIDNIGHT + 2 * attempt.number * HOUR
        if attempt.ended_at is not None:
            with transaction(world.engine) as session:
                (row,) = used(session, Window(begins, begins + HOUR), (), team_id=None, now=begins + HOUR)
            assert row.slot_seconds == 3600
            found[attempt.number] = float(row.wasted_slot_seconds) / 3600
    return found


def checkpoint_ids(world: World, attempt_id: str) -> list[str]:
    with transaction(world.engine) as session:
        rows = session.query(Checkpoint.id, Checkpoint.step).filter(Checkpoint.attempt_id == attempt_id)
        return [id for id, _ in sorted(rows, key=lambda row: row.step)]


def test_what_a_lost_try_did_behind_its_last_checkpoint_was_in_vain(world: World) -> None:
    first = world.running()
    store(world, first, 1)
    spread(world, first.job_id)
    second = next_try(world, first)
    spread(world, first.job_id)
    assert hours(world, first.job_id) == {1: 0.0}, "not settled yet: the second may go on from it"
    (taken,) = checkpoint_ids(world, first.attempt_id)
    assert go_on_from(world, second, taken)
    assert hours(world, first.job_id) == {1: 0.5}
    assert world.finish(second, Outcome.SUCCEEDED, result={})
    spread(world, first.job_id)
    assert hours(world, first.job_id) == {1: 0.5, 2: 0.0}


def test_a_try_that_starts_anew_or_goes_further_back_leaves_the_tries_behind_it_in_vain(
    world: World,
) -> None:
    first = world.running()
    store(world, first, 1)
    second = next_try(world, first)
    go_on_from(world, second, checkpoint_ids(world, first.attempt_id)[0])
    store(world, second, 2)
    third = next_try(world, second)
    spread(world, first.job_id)
    go_on_from(world, third, checkpoint_ids(world, second.attempt_id)[0])
    assert hours(world, first.job_id)[2] == 0.5
    go_on_from(world, third, checkpoint_ids(world, first.attempt_id)[0])
    assert hours(world, first.job_id) == {1: 0.5, 2: 1.0}
    go_on_from(world, third, None)
    assert hours(world, first.job_id) == {1: 1.0, 2: 1.0}


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.STOPPED])
def test_a_job_that_ends_without_a_result_was_in_vain_from_its_last_checkpoint_that_was_used(
    world: World, outcome: Outcome
) -> None:
    claimed = world.running()
    store(world, claimed, 1)
    if outcome is Outcome.STOPPED:
        world.stop(claimed.job_id, StopReason.CANCEL)
    assert world.finish(claimed, outcome)
    spread(world, claimed.job_id)
    assert hours(world, claimed.job_id) == {1: 1.0}


def test_a_paused_job_has_wasted_nothing_yet(world: World) -> None:
    claimed = world.running()
    store(world, claimed, 1)
    world.stop(claimed.job_id, StopReason.PAUSE)
    assert world.finish(claimed, Outcome.STOPPED)
    spread(world, claimed.job_id)
    assert hours(world, claimed.job_id) == {1: 0.0}


def test_the_shards_that_an_extraction_has_stored_are_kept(world: World) -> None:
    claimed = world.running()
    shard = StoredArtifact("activations/1.safetensors", "k", 1, "0")
    assert run_step(world.engine, leases.add_artifact, token=claimed.token, artifact=shard)
    with transaction(world.engine) as session:
        session.execute(update(Attempt).values(kept_until=MIDNIGHT + 2.25 * HOUR))
    assert world.finish(claimed, Outcome.LOST)
    spread(world, claimed.job_id)
    assert hours(world, claimed.job_id) == {1: 0.75}
    with transaction(world.engine) as session:
        session.execute(update(Attempt).values(kept_until=None))
    assert hours(world, claimed.job_id) == {1: 0.0}


def test_an_offer_that_nobody_took_held_nothing_and_a_job_that_runs_holds_until_now(world: World) -> None:
    world.node()
    world.offer(world.job())
    assert sums(world.engine) == (0, 0)
    claimed = world.claim(world.offer(world.job(devices_per_node=1), slots=(1,)))
    assert claimed is not None
    before, _ = sums(world.engine)
    after, wasted = sums(world.engine)
    assert 0 < before < after
    assert wasted == 0


def test_a_node_that_comes_back_with_another_accelerator_changes_nothing_that_was(world: World) -> None:
    world.node(accelerator="NVIDIA A100")
    claimed = world.running()
    world.finish(claimed, Outcome.SUCCEEDED, result={})
    world.node(accelerator="NVIDIA H100")
    with transaction(world.engine) as session:
        current = now(session)
        (row,) = used(session, Window(MIDNIGHT, current), (), team_id=None, now=current)
    assert row.accelerator == "NVIDIA A100"
