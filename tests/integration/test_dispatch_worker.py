"""A real worker process on the real queue: it claims, is killed, is started again, and leaves in order."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest
from dispatch_rows import World
from pydantic import SecretStr
from sqlalchemy import delete, select
from waiting import eventually

from devstack.processes import running
from devstack.redis import Redis
from scheduler.loop import Scheduler
from shared.db.engine import make_engine, transaction
from shared.db.models import Attempt, NodeRow, RegisteredModel
from shared.domain.job import JobState, NodeState, Outcome
from shared.queue import UnfitRedis, check_redis, make_app, publish, redis_client
from shared.settings import Settings
from worker.handling import left_behind
from worker.serve import FolderInUse, serve
from worker.slots import hold_shared, slot_lock_path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = Path(__file__).resolve().parent / "node_program.py"


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=10)
    yield World(engine).found()
    engine.dispose()


@pytest.fixture
def scheduling(world: World, settings: Settings) -> Iterator[None]:
    """A scheduler at work."""
    stop = Event()
    app = make_app(settings.redis_url.get_secret_value())
    thread = Thread(target=Scheduler(world.engine, app, settings).run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join(10)


@pytest.fixture
def own_redis(tmp_path: Path) -> Redis:
    """A Redis of this test's own, which it may stop."""
    return Redis.prepare(tmp_path / "redis")


Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def start(world: World, settings: Settings, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts the worker of node-0, as often as it is called; kills what is left at the end."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "THAW_DATABASE_URL": settings.database_url.get_secret_value(),
        "THAW_REDIS_URL": settings.redis_url.get_secret_value(),
        "THAW_STORE_URL": settings.store_url,
        "THAW_WORK_DIR": str(settings.work_dir),
        "THAW_NODE_NAME": "node-0",
        "THAW_SLOTS": "2",
        "THAW_NODE_HEARTBEAT_S": "0.3",
    }
    world.know_models()
    if "own_redis" in request.fixturenames:
        url = request.getfixturevalue("own_redis").url()
        environment["THAW_REDIS_URL"] = url
        settings.redis_url = SecretStr(url)
    started: list[subprocess.Popen[bytes]] = []

    def one() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, str(PROGRAM)], env=environment, cwd=ROOT))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.wait()


def state(world: World, job: str) -> JobState:
    return world.read(job).state


def is_ready(world: World) -> bool:
    with transaction(world.engine) as session:
        node = session.get(NodeRow, "node-0")
        return node is not None and node.state is NodeState.READY


def let_finish(settings: Settings) -> None:
    (settings.work_dir / "finish").touch()


@pytest.mark.usefixtures("scheduling")
def test_jobs_queued_before_the_worker_is_up_run_on_it(
    world: World, settings: Settings, start: Start
) -> None:
    jobs = [world.job() for _ in range(3)]
    start()
    eventually(lambda: [state(world, job) for job in jobs].count(JobState.RUNNING) == 2, within_s=60)
    assert state(world, jobs[2]) is JobState.QUEUED, "two slots run two jobs"
    let_finish(settings)
    eventually(lambda: all(state(world, job) is JobState.SUCCEEDED for job in jobs))


@pytest.mark.usefixtures("scheduling")
def test_a_killed_worker_leaves_no_process_and_its_job_goes_on_at_once(
    world: World, settings: Settings, start: Start
) -> None:
    job = world.job(devices_per_node=2)
    worker = start()
    eventually(lambda: state(world, job) is JobState.RUNNING, within_s=60)
    children = psutil.Process(worker.pid).children(recursive=True)
    assert children
    worker.kill()
    worker.wait()
    eventually(lambda: not any(is_alive(child) for child in children), within_s=10)
    start()
    eventually(lambda: len(world.attempts(job)) == 2 and state(world, job) is JobState.RUNNING, within_s=60)
    assert world.read(job).attempts_used == 1
    let_finish(settings)
    eventually(lambda: state(world, job) is JobState.SUCCEEDED)


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.usefixtures("scheduling")
def test_a_killed_pool_process_costs_a_try_and_no_lease(
    world: World, settings: Settings, start: Start
) -> None:
    job = world.job()
    start()
    eventually((settings.work_dir / "pid-1").exists, within_s=60)
    eventually(lambda: (settings.work_dir / "pid-1").read_text() != "")
    os.kill(int((settings.work_dir / "pid-1").read_text()), signal.SIGKILL)
    eventually((settings.work_dir / "pid-2").exists, within_s=15)
    assert world.read(job).attempts_used == 1
    eventually(lambda: len(left_behind(settings.work_dir)) == 1)


def test_a_slot_still_in_use_keeps_the_earlier_claim_alive(
    world: World, settings: Settings, start: Start
) -> None:
    """The lock is the trainer's: while it stands, nobody may say that nothing runs there."""
    claimed = world.running()
    held = hold_shared(slot_lock_path(settings.work_dir, 0))
    incarnation = world.node_row().incarnation
    start()
    eventually(lambda: world.node_row().incarnation != incarnation, within_s=60)
    seen = world.node_row().last_seen_at
    eventually(lambda: world.node_row().last_seen_at > seen)
    assert state(world, claimed.job_id) is JobState.RUNNING
    os.close(held)
    eventually(lambda: state(world, claimed.job_id) is JobState.QUEUED)
    eventually(lambda: world.slots() == ["free", "free"])


@pytest.mark.usefixtures("scheduling")
def test_a_worker_told_to_stop_lets_its_job_leave_and_ends(
    world: World, settings: Settings, start: Start
) -> None:
    job = world.job()
    worker = start()
    eventually(lambda: state(world, job) is JobState.RUNNING, within_s=60)
    worker.terminate()
    assert worker.wait(30) == 0
    assert (state(world, job), world.read(job).attempts_used) == (JobState.QUEUED, 0)
    assert "drain" in [event.data.get("stop_reason") for event in world.events(job)]
    assert world.node_row().state is NodeState.DRAINING


def test_the_same_message_twice_runs_once(world: World, settings: Settings, start: Start) -> None:
    start()
    eventually(lambda: is_ready(world), within_s=60)
    job = world.job()
    offer = world.offer(job)
    app = make_app(settings.redis_url.get_secret_value())
    for _ in range(3):
        publish(app, node_id="node-0", allocation_id=offer.allocation_id, dispatch_seq=1)
    eventually(lambda: state(world, job) is JobState.RUNNING)
    second = world.job()
    other = world.offer(second, slots=(1,))
    publish(app, node_id="node-0", allocation_id=other.allocation_id, dispatch_seq=1)
    eventually(lambda: state(world, second) is JobState.RUNNING)
    assert world.allocation(offer.allocation_id).dispatch_seq == 1
    assert [event.data.get("new") for event in world.events(job)].count("running") == 1


def test_a_worker_hears_its_queue_again_after_redis_was_away(
    world: World, settings: Settings, start: Start, own_redis: Redis, tmp_path: Path
) -> None:
    server = own_redis.part(tmp_path / "redis.log")
    with running(server):
        start()
        eventually(lambda: is_ready(world), within_s=60)
    eventually(lambda: world.node_row().state is NodeState.SUSPECT)
    with running(server):
        eventually(lambda: is_ready(world))
        job = world.job()
        offer = world.offer(job)
        app = make_app(settings.redis_url.get_secret_value())
        publish(app, node_id="node-0", allocation_id=offer.allocation_id, dispatch_seq=1)
        eventually(lambda: state(world, job) is JobState.RUNNING, within_s=60)


@pytest.mark.slow
@pytest.mark.usefixtures("scheduling")
def test_fifty_queued_jobs_outlive_a_redis_that_forgets_everything(
    world: World, settings: Settings, start: Start
) -> None:
    jobs = [world.job() for _ in range(50)]
    start()
    eventually(lambda: [state(world, job) for job in jobs].count(JobState.RUNNING) == 2, within_s=60)

    with redis_client(settings.redis_url.get_secret_value()) as queue:
        queue.flushall()
    let_finish(settings)

    eventually(lambda: all(state(world, job) is JobState.SUCCEEDED for job in jobs), within_s=200)
    with transaction(world.engine) as session:
        outcomes = session.scalars(select(Attempt.outcome)).all()
    # An offer whose message was forgotten is taken back after a while, and uses up no attempt.
    assert [outcomes.count(Outcome.SUCCEEDED), outcomes.count(Outcome.LOST)] == [50, 0]


def test_a_worker_tells_the_registered_models_it_has(world: World, start: Start) -> None:
    with transaction(world.engine) as session:
        session.execute(delete(RegisteredModel))
    start()
    eventually(lambda: is_ready(world), within_s=90)
    with transaction(world.engine) as session:
        described = {(row.name, row.hash) for row in session.scalars(select(RegisteredModel))}
    assert described == {(name, hash) for name, hash in world.node_row().models}


def test_two_workers_do_not_share_a_work_folder(settings: Settings) -> None:
    settings.work_dir.mkdir()
    with (settings.work_dir / "worker.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(FolderInUse, match="THAW_WORK_DIR"):
            serve(settings.model_copy(update={"time_scale": 0.01}), lambda claim, settings: None)


def test_a_redis_that_would_lose_messages_is_refused(redis_url: str) -> None:
    client = redis_client(redis_url)
    check_redis(client)
    client.config_set("appendonly", "no")
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnfitRedis, match="must be noeviction; appendonly is no"):
            check_redis(client)
    finally:
        client.config_set("appendonly", "yes")
        client.config_set("maxmemory-policy", "noeviction")
        client.close()


def test_the_worker_process_holds_no_torch() -> None:
    program = "import worker.__main__, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
