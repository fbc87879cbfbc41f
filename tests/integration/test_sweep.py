"""The sweep on a real database and a real store: garbage goes, and nothing that anybody needs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on
from api_server import ROOT, environment
from dispatch_rows import World
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Engine, select, update
from swept_store import GRACE_S, SweptStore, worlds
from waiting import eventually

from scheduler.sweeper import Sweeper, sweeping
from shared.artifacts import open_store
from shared.artifacts.keys import artifact_key, checkpoint_prefix
from shared.db.clock import seconds_ago
from shared.db.engine import make_engine, transaction
from shared.db.models import Artifact, Attempt, Checkpoint, File, Job
from shared.db.sweeping import sweep_lock
from shared.domain.job import JobState, Outcome
from shared.domain.sweeping import Verdict
from shared.settings import Settings


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=5)
    yield engine
    engine.dispose()


def sweep_all(sweeper: Sweeper) -> int:
    """Round after round to the store's end; how many files went."""
    gone = 0
    while True:
        swept = sweeper.round()
        assert swept is not None
        gone += swept.n_gone
        if swept.is_whole:
            return gone


def test_all_that_is_needed_stays_and_all_old_garbage_goes(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    World(engine).found()
    folders = count()

    @hypothesis_settings(
        max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(drawn=worlds)
    def check(drawn: dict[str, Any]) -> None:
        world = SweptStore(engine, tmp_path / f"store-{next(folders)}")
        world.root.mkdir()
        world.build(drawn)
        assert world.keys() == world.stays | world.goes

        few = settings.model_copy(update={"sweep_grace_s": GRACE_S, "sweep_objects": 7})
        assert sweep_all(Sweeper(engine, world.store, few)) == len(world.goes)

        assert world.keys() == world.stays
        with transaction(engine) as session:
            dropped = Checkpoint.dropped_at <= seconds_ago(GRACE_S)
            rows = set(session.scalars(select(Checkpoint.storage_prefix).where(dropped)))
        assert not rows & {key.rpartition("/")[0] for key in world.goes}

    check()


def test_an_upload_that_goes_on_beside_the_sweep_loses_nothing(engine: Engine, settings: Settings) -> None:
    """A running attempt writes checkpoints and results while rounds without any grace go over them."""
    world = World(engine).found()
    claimed = world.running()
    store = open_store(settings.store_url)
    place = (claimed.team_id, claimed.job_id, claimed.attempt_id)
    at_once = settings.model_copy(update={"sweep_grace_s": 0.0, "sweep_objects": 5})
    sweeper = Sweeper(engine, store, at_once)
    is_over = threading.Event()
    failures: list[BaseException] = []

    def sweep() -> None:
        try:
            while not is_over.is_set():
                sweeper.round()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=sweep)
    thread.start()
    written = set()
    for step in range(20):
        for name in ("moving.safetensors", "state.pt", "manifest.json"):
            key = f"{checkpoint_prefix(*place, step)}/{name}"
            store.put_stream(key, iter([b"x" * 100_000] * 3))
            written.add(key)
    written |= {store.put_bytes(artifact_key(*place, n), b"x").key for n in ("logs.txt", "model.json")}
    is_over.set()
    thread.join()
    assert failures == []
    assert {entry.key for entry in store.list()} == written

    world.finish(claimed, Outcome.LOST)
    sweep_all(Sweeper(engine, store, at_once))
    assert [entry.key for entry in store.list()] == [artifact_key(*place, "logs.txt")]


def test_a_deleted_job_is_gone_at_once_and_its_files_after_the_grace(settings: Settings) -> None:
    with api_on(settings) as house:
        file = house.data_set("a", "b")
        job_id, kept = (house.job(training_file=file)["id"] for _ in range(2))
        for one in (job_id, kept):
            house.add_artifact(one, "model.safetensors", b"weights")
            house.add_artifact(one, "logs.txt", b"log", number=2)
            house.move(one, JobState.DISPATCHED, JobState.RUNNING, JobState.SUCCEEDED)
        _age_attempts(house)
        assert house.client.delete(f"{JOBS}/{job_id}").json() == {
            "id": job_id,
            "object": "fine_tuning.job",
            "deleted": True,
        }
        sweeper = Sweeper(house.engine, open_store(settings.store_url), settings)
        files = len(house.stored_bytes())
        sweep_all(sweeper)
        assert len(house.stored_bytes()) == files

        for path in house.stored_bytes():
            os.utime(path, (time.time() - 2 * settings.sweep_grace_s,) * 2)
        sweep_all(sweeper)
        assert len(house.stored_bytes()) == files
        with transaction(house.engine) as session:
            ago = seconds_ago(2 * settings.sweep_grace_s)
            session.execute(update(Job).where(Job.id == job_id).values(deleted_at=ago))
        assert sweep_all(sweeper) == 2
        assert len(house.stored_bytes()) == files - 2
        assert house.client.get(f"{JOBS}/{kept}/artifacts/model.safetensors").content == b"weights"
        assert house.client.get(f"{JOBS}/{kept}/logs").text == "log"


def test_bytes_that_outlived_their_deleted_file_go(settings: Settings) -> None:
    with api_on(settings) as house:
        gone, kept = house.data_set("a", "b"), house.data_set("a", "c")
        with transaction(house.engine) as session:  # as when the store was away at the deletion
            ago = seconds_ago(2 * settings.sweep_grace_s)
            session.execute(update(File).where(File.id == gone).values(deleted_at=ago))
        for path in house.stored_bytes():
            os.utime(path, (time.time() - 2 * settings.sweep_grace_s,) * 2)
        assert sweep_all(Sweeper(house.engine, open_store(settings.store_url), settings)) == 1
        assert [path.name for path in house.stored_bytes()] == [kept]


def test_one_sweeps_at_a_time(engine: Engine, settings: Settings) -> None:
    sweeper = Sweeper(engine, open_store(settings.store_url), settings)
    with sweep_lock(engine) as first:
        assert first
        assert sweeper.round() is None
    assert sweeper.round() is not None


def test_a_dry_run_prints_what_would_go_and_removes_nothing(settings: Settings) -> None:
    with api_on(settings) as house:
        job_id = house.job(training_file=house.data_set("a", "b"))["id"]
        house.add_artifact(job_id, "model.safetensors", b"weights")
        house.move(job_id, JobState.CANCELLED)
        with transaction(house.engine) as session:
            session.query(Artifact).delete()
        (Path(house.settings.store_url.removeprefix("file://")) / "mine.txt").write_bytes(b"?")
        before = house.stored_bytes()

        shown = _sweep_command(settings, "--dry-run")
        assert shown.returncode == 0, shown.stderr
        assert "left_over" in shown.stdout
        assert "model.safetensors" in shown.stdout
        assert f"{Verdict.UNKNOWN}" in shown.stdout
        assert "1 files of 7 bytes would go" in shown.stdout
        assert house.stored_bytes() == before

        done = _sweep_command(settings)
        assert (done.returncode, done.stdout) == (0, "1 files of 7 bytes are gone\n"), done.stderr
        assert {path.name for path in set(before) - set(house.stored_bytes())} == {"model.safetensors"}
        with sweep_lock(house.engine):
            assert _sweep_command(settings).returncode == 3


def test_the_scheduler_sweeps_beside_its_work(engine: Engine, settings: Settings, tmp_path: Path) -> None:
    claimed = World(engine).found().running()
    World(engine).finish(claimed, Outcome.LOST)
    store = open_store(settings.store_url)
    store.put_bytes(artifact_key(claimed.team_id, claimed.job_id, claimed.attempt_id, "model.json"), b"x")
    often = settings.model_copy(update={"sweep_s": 0.05, "sweep_grace_s": 0.0})
    with sweeping(engine, often, threading.Event()):
        eventually(lambda: store.list() == ())


def _age_attempts(house: ApiHouse) -> None:
    with transaction(house.engine) as session:
        session.execute(update(Attempt).values(ended_at=seconds_ago(2 * house.settings.sweep_grace_s)))


def _sweep_command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scheduler.sweep", *arguments],
        cwd=ROOT,
        env={**environment(settings), "THAW_SWEEP_GRACE_S": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
