"""At scale, on real processes: a message delivered ever so often starts once, a job is placed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conditions import wait_for
from dispatch_rows import World
from services import processes
from sqlalchemy import func, select

from shared.db.engine import make_engine, transaction
from shared.db.models import Allocation, Attempt, Job, NodeRow, Slot
from shared.db.placement import Offer
from shared.domain.job import JobState, NodeState, SlotState
from shared.queue import make_app, n_messages, node_queue, publish, redis_client
from shared.settings import Settings

pytestmark = pytest.mark.slow

COUNTING = Path(__file__).resolve().parent / "counting_program.py"
NODES = tuple(f"node-{n}" for n in range(4))
DELIVERIES = 100
JOBS = 1000


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=10)
    world = World(engine).found().know_models()
    yield world
    engine.dispose()


def test_the_same_message_a_hundred_times_to_four_workers_starts_once(
    world: World, settings: Settings, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    starts.mkdir()
    own = [
        {
            "THAW_NODE_NAME": node,
            "THAW_WORK_DIR": str(tmp_path / node),
            "THAW_SLOTS": "4",
            "STARTS": str(starts),
        }
        for node in NODES
    ]
    with processes(*[[str(COUNTING)]] * len(NODES), settings=settings, environments=own):
        wait_for(lambda: all_ready(world), 120, "four nodes")
        app, client = (
            make_app(settings.redis_url.get_secret_value()),
            redis_client(settings.redis_url.get_secret_value()),
        )
        job = world.job()
        offer = offered(world, job, "node-0", 0)
        for number in range(DELIVERIES):
            node = NODES[number % len(NODES)]
            publish(app, node_id=node, allocation_id=offer.allocation_id, dispatch_seq=offer.dispatch_seq)
        # Behind them in each queue a job of its own: once that runs, all before it were answered.
        last = [world.job() for _ in NODES]
        for node, one in zip(NODES, last, strict=True):
            behind = offered(world, one, node, 1)
            publish(app, node_id=node, allocation_id=behind.allocation_id, dispatch_seq=1)
        wait_for(lambda: all(is_running(world, one) for one in (job, *last)), 120, "all to run")
        wait_for(lambda: not any(n_messages(client, node) for node in NODES), 60, "empty queues")
        client.close()
        assert Counter(path.name.rpartition("-")[0] for path in starts.iterdir()) == Counter([job, *last])
        assert len(world.attempts(job)) == 1


def offered(world: World, job: str, node: str, slot: int) -> Offer:
    """An offer of the job; a heartbeat may hold the node's row for a moment, and `place` waits for nobody."""
    (offer,) = wait_for(lambda: world.offer_gang(job, (node, (slot,))), 10, "an offer")
    return offer


def all_ready(world: World) -> bool:
    with transaction(world.engine) as session:
        states = session.scalars(select(NodeRow.state)).all()
    return len(states) == len(NODES) and set(states) == {NodeState.READY}


def is_running(world: World, job: str) -> bool:
    return world.read(job).state is JobState.RUNNING


def test_three_schedulers_place_a_thousand_jobs_exactly_once_each(world: World, settings: Settings) -> None:
    for node in NODES:
        world.node(node, slots=JOBS // len(NODES))
    queue_jobs(world)
    # The nodes are rows alone here, which nobody keeps alive, and their offers stay unanswered.
    patient = {"THAW_NODE_HEARTBEAT_S": "600", "THAW_OFFER_S": "600", "THAW_LEASE_S": "600"}
    with processes(*[["-m", "scheduler"]] * 3, settings=settings, environments=[patient for _ in range(3)]):
        wait_for(lambda: n_dispatched(world) == JOBS, 180, "a thousand placed jobs")
        client = redis_client(settings.redis_url.get_secret_value())
        wait_for(
            lambda: sum(n_messages(client, node) for node in NODES) >= JOBS, 60, "a message for each of them"
        )
        lying = [client.llen(node_queue(node).name) for node in NODES]
        client.close()
    assert lying == [JOBS // len(NODES)] * len(NODES)
    with transaction(world.engine) as session:
        tries = session.execute(select(func.count(), func.count(Attempt.job_id.distinct()))).one()
        shares = session.execute(select(func.count(), func.count(Allocation.attempt_id.distinct()))).one()
        held = session.execute(
            select(func.count(), func.count(Slot.allocation_id.distinct())).where(
                Slot.state == SlotState.HELD
            )
        ).one()
    assert tuple(tries) == tuple(shares) == tuple(held) == (JOBS, JOBS)


def queue_jobs(world: World) -> None:
    """Copies of one job, in one statement."""
    first = world.job()
    with transaction(world.engine) as session:
        row = session.get_one(Job, first)
        columns = {column.key: getattr(row, column.key) for column in Job.__table__.columns}
        session.execute(
            Job.__table__.insert(),
            [{**columns, "id": f"{first}-{number}", "n_events": 0} for number in range(JOBS - 1)],
        )


def n_dispatched(world: World) -> int:
    with transaction(world.engine) as session:
        query = select(func.count()).where(Job.state == JobState.DISPATCHED)
        return int(session.scalar(query) or 0)
