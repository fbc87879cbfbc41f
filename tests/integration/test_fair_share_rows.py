"""Quotas on the real database: who is placed, who is asked to hand back, and what each is told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from dispatch_rows import World
from sqlalchemy import func, text, update

from scheduler.loop import Scheduler
from scheduler.placing import place_jobs
from shared.db import quotas
from shared.db.engine import make_engine, transaction
from shared.db.held_slots import load_running
from shared.db.leases import Claim
from shared.db.models import Allocation, ApiKey, Attempt, Job, Team
from shared.db.past_usage import PastUsage
from shared.db.steps import run_step
from shared.domain.job import JobState, Outcome, StopReason
from shared.domain.quota import Quota, TeamShare
from shared.domain.standing import held_on_average
from shared.domain.team_limits import TeamTerms
from shared.queue import make_app
from shared.settings import Settings


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=10)
    made = World(engine).found()
    with transaction(engine) as session:
        session.add(Team(id="team-2", name="vision"))
        session.flush()
        session.add(ApiKey(id="key-2", team_id="team-2", name="k", role="member", prefix="thaw_", sha256="1"))
    yield made
    engine.dispose()


def owned(world: World, team: str, nominal: int, borrow: int | None = None) -> None:
    terms = TeamTerms(TeamShare(quotas={"cpu": Quota(nominal, borrow)}))
    run_step(world.engine, quotas.replace_terms, team, terms)


def job(world: World, team: str, devices: int = 1, *, nodes: int = 1) -> str:
    return world.job(team_id=team, created_by=f"key-{team[-1]}", devices_per_node=devices, nodes=nodes)


def run_all(world: World, settings: Settings) -> list[Claim]:
    """One pass, and every offer claimed."""
    claims = [world.claim(offer) for offer in run_step(world.engine, place_jobs, settings)]
    return [claim for claim in claims if claim is not None]


def test_the_owner_comes_back_and_the_youngest_that_borrowed_hands_its_slots_over(
    world: World, settings: Settings
) -> None:
    world.node(slots=4)
    owned(world, "team-2", 2)
    guests = [job(world, "team-1") for _ in range(4)]
    claims = {claim.job_id: claim for claim in run_all(world, settings)}
    assert set(claims) == set(guests)
    own = job(world, "team-2", 2)
    assert run_all(world, settings) == []
    by_age = sorted(guests, key=lambda id: world.attempts(id)[0].created_at)
    assert [world.read(id).state for id in by_age] == [JobState.RUNNING] * 2 + [JobState.STOPPING] * 2
    left = world.read(by_age[-1])
    assert left.stop_reason is StopReason.PREEMPT
    assert world.events(left.id)[-1].message == (
        "The team vision takes its nominal quota of 2 of type cpu back, which this job has borrowed."
    )
    assert "are coming free for it" in (world.read(own).wait_reason or "")
    run_all(world, settings)
    assert [world.read(id).state for id in by_age] == [JobState.RUNNING] * 2 + [JobState.STOPPING] * 2
    for id in by_age[2:]:
        assert world.finish(claims[id], Outcome.STOPPED)
        run_all(world, settings)
    assert world.read(own).state is JobState.RUNNING
    assert {world.read(id).state for id in by_age[2:]} == {JobState.QUEUED}
    assert [world.read(id).attempts_used for id in by_age[2:]] == [0, 0]


def test_an_owed_gang_takes_a_borrowed_ones_nodes_back_and_starts_when_all_are_free(
    world: World, settings: Settings
) -> None:
    for name in ("node-0", "node-1"):
        world.node(name, slots=2)
    owned(world, "team-2", 4)
    guest = job(world, "team-1", 2, nodes=2)
    claims = run_all(world, settings)
    (held,) = run_step(world.engine, load_running)
    assert (held.id, held.held, held.slots) == (guest, (("node-0", 2), ("node-1", 2)), 4)
    assert run_step(world.engine, quotas.slots_held, "team-1") == {"cpu": 4}
    own = job(world, "team-2", 1, nodes=2)
    assert run_all(world, settings) == []
    assert run_all(world, settings) == []
    assert [event.data["new"] for event in world.events(guest)].count("stopping") == 1
    assert world.read(own).wait_reason == (
        "needs 2 nodes with 1 of type any each; it is within your team's nominal quota of 4 of type cpu, and "
        "1 each on node-0 and node-1 are coming free for it"
    )
    for claim, comes_free in zip(claims, ([], [own, own]), strict=True):
        assert world.finish(claim, Outcome.STOPPED)
        assert [claim.job_id for claim in run_all(world, settings)] == comes_free
    assert (world.read(own).state, world.read(guest).state) == (JobState.RUNNING, JobState.QUEUED)
    assert world.read(guest).attempts_used == 0


def test_who_was_preempted_does_not_preempt_back(world: World, settings: Settings) -> None:
    world.node(slots=2)
    for team in ("team-1", "team-2"):
        owned(world, team, 1)
    guests = [job(world, "team-1") for _ in range(2)]
    claims = {claim.job_id: claim for claim in run_all(world, settings)}
    job(world, "team-2")
    run_all(world, settings)
    (asked,) = (id for id in guests if world.read(id).state is JobState.STOPPING)
    world.finish(claims[asked], Outcome.STOPPED)
    run_all(world, settings)
    with transaction(world.engine) as session:
        session.execute(update(Job).values(preempted_at=Job.preempted_at - timedelta(seconds=60)))
    for _ in range(3):
        run_all(world, settings)
    assert world.read(asked).state is JobState.QUEUED
    assert world.read(asked).wait_reason == ("needs 1 of type any on one node; the largest free block is 0")


def test_an_offer_that_nobody_answered_is_taken_back_for_the_owner(world: World, settings: Settings) -> None:
    world.node(slots=1)
    owned(world, "team-2", 1)
    guest = job(world, "team-1")
    run_step(world.engine, place_jobs, settings)
    own = job(world, "team-2")
    scheduler = Scheduler(world.engine, make_app(settings.redis_url.get_secret_value()), settings)
    scheduler.step()
    scheduler.step()
    assert (world.read(guest).state, world.read(own).state) == (JobState.QUEUED, JobState.DISPATCHED)


def test_reasons_tell_of_quotas(world: World, settings: Settings) -> None:
    world.node(slots=4)
    owned(world, "team-1", 1, borrow=2)
    held = [job(world, "team-1") for _ in range(3)]
    assert len(run_all(world, settings)) == len(held)
    over = job(world, "team-1")
    run_all(world, settings)
    assert world.read(over).wait_reason == (
        "needs 1 of type any on one node; your team holds 3 of type cpu, and may hold its nominal quota of 1 "
        "and 2 borrowed"
    )
    owned(world, "team-1", 1)
    large = job(world, "team-1", 3)
    run_all(world, settings)
    assert world.read(large).wait_reason == (
        "needs 3 of type any on one node; the largest free block is 0; your team is over its nominal quota "
        "of 1 by 3, borrowed"
    )


def test_a_team_that_has_held_more_goes_second(world: World, settings: Settings) -> None:
    world.node(slots=1)
    (claimed,) = [job(world, "team-1"), run_all(world, settings)][1]
    world.finish(claimed, Outcome.SUCCEEDED, result={})
    age_all(world, hours=10)
    first, second = job(world, "team-1"), job(world, "team-2")
    run_all(world, settings)
    assert (world.read(first).state, world.read(second).state) == (JobState.QUEUED, JobState.RUNNING)


def age_all(world: World, *, hours: float) -> None:
    """Have what was held begin so long before it ended."""
    with transaction(world.engine) as session:
        session.execute(update(Allocation).values(claimed_at=Allocation.claimed_at - timedelta(hours=hours)))


def test_the_past_is_counted_as_the_rules_say(world: World, settings: Settings) -> None:
    world.node(slots=4)
    job(world, "team-1", 3)
    (claimed,) = run_all(world, settings)
    world.finish(claimed, Outcome.SUCCEEDED, result={})
    with transaction(world.engine) as session:
        ended = func.clock_timestamp() - timedelta(hours=5)
        session.execute(update(Allocation).values(ended_at=ended, claimed_at=ended - timedelta(hours=2)))
        found = PastUsage(3 * 3600.0).read(session)
        session.execute(update(Allocation).values(ended_at=ended - timedelta(days=9)))
        forgotten = PastUsage(3 * 3600.0).read(session)
    expected = held_on_average(3, 7 * 3600.0, 5 * 3600.0, half_life_s=3 * 3600.0)
    assert found == {("team-1", "cpu"): pytest.approx(expected, rel=1e-3)}
    assert forgotten == {}


def test_a_past_that_is_kept_is_that_which_is_summed_up_anew(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db.past_usage._SETTLED_AFTER", timedelta(0))
    world.node(slots=4)
    kept = PastUsage(3600.0)
    for devices in (3, 2, 1):
        job(world, "team-1", devices)
        (claimed,) = run_all(world, settings)
        with transaction(world.engine) as session:
            hour_ago = func.clock_timestamp() - timedelta(hours=1)
            session.execute(
                update(Allocation).where(Allocation.ended_at.is_(None)).values(claimed_at=hour_ago)
            )
            assert kept.read(session) == pytest.approx(PastUsage(3600.0).read(session), rel=1e-3)
        world.finish(claimed, Outcome.SUCCEEDED, result={})
        with transaction(world.engine) as session:
            assert kept.read(session) == pytest.approx(PastUsage(3600.0).read(session), rel=1e-3)
    with transaction(world.engine) as session:
        session.execute(update(Allocation).values(slots=[]))
        assert kept.read(session)["team-1", "cpu"] > 1.0, "what has ended is not read again"


def test_a_team_that_waits_alone_is_placed_in_order_as_ever(world: World, settings: Settings) -> None:
    world.node(slots=1)
    early, urgent = job(world, "team-1"), world.job(priority=5)
    (claimed,) = run_all(world, settings)
    assert claimed.job_id == urgent
    assert world.read(early).wait_reason == "needs 1 of type any on one node; the largest free block is 0"
    with transaction(world.engine) as session:
        assert session.scalar(text("select count(*) from team_quotas")) == 0
        assert session.query(Attempt).count() == 1
