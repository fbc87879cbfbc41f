"""A supervisor with real jobs: how they end, what they leave in the store, that no process is left."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dispatch_rows import World
from launched import SOURCES, eventually, state_of
from sqlalchemy import update
from supervised import House

from devstack.postgres import Postgres
from devstack.processes import Child
from shared.artifacts import open_store
from shared.db.engine import make_engine, transaction
from shared.db.models import Attempt, Checkpoint
from shared.db.steps import run_step
from shared.db.work import load_work
from shared.domain.job import JobState, Outcome, StopReason
from shared.settings import Settings
from worker.slots import slot_lock_path, try_exclusive

END = 90.0
LONG = 5_000


@pytest.fixture
def house(database_url: str, store_url: str, tmp_path: Path) -> Iterator[House]:
    with furnished(database_url, store_url, tmp_path) as house:
        yield house


@contextmanager
def furnished(database_url: str, store_url: str, folder: Path, time_scale: float = 1.0) -> Iterator[House]:
    settings = Settings(
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        store_url=store_url,
        work_dir=folder / "work",
        time_scale=time_scale,
    )
    engine = make_engine(database_url)
    world = World(engine).found()
    world.node()
    house = House(settings, world)
    yield house
    engine.dispose()
    eventually(lambda: not house.trainers(), within_s=10, what="no trainer is left")


def test_a_job_on_two_ranks_succeeds_and_its_result_is_stored(house: House, tmp_path: Path) -> None:
    job = house.job(n_epochs=3)
    claim = house.claim(job)
    assert house.supervise(claim).wait(END) == 0, "0 also says that the supervisor imported no torch"

    row = house.world.read(job)
    assert row.state is JobState.SUCCEEDED, row.error
    assert row.result is not None
    assert row.result["ranks"]["equal"] is True
    assert row.result["frozen_proof"]["unchanged"] is True
    assert row.trained_at is not None
    assert {metric.kind for metric in house.metrics(job)} == {"train"}
    assert [checkpoint.epoch for checkpoint in house.checkpoints(job)][-1] == 3
    assert house.world.slots() == ["free", "free"]
    assert not list((house.settings.work_dir / "runs").iterdir())

    expected = {"model.safetensors", "model.json", "trainable.safetensors", "result.json", "metrics.jsonl"}
    assert house.artifacts(job).keys() == expected | {"logs.txt"}
    result = house.fetched(job, tmp_path / "result")
    assert json.loads((result / "result.json").read_text())["job_id"] == job
    assert "epoch 3/3" in (result / "logs.txt").read_text()


def test_a_cancelled_job_stops_and_frees_its_slots(house: House) -> None:
    job = house.job(n_epochs=LONG)
    supervisor = house.supervise(house.claim(job))
    eventually(lambda: house.metrics(job), within_s=END, what="it trains")
    house.world.stop(job, StopReason.CANCEL)
    assert supervisor.wait(END) == 0
    assert house.world.read(job).state is JobState.CANCELLED
    assert house.world.attempts(job)[0].outcome is Outcome.STOPPED
    assert house.world.slots() == ["free", "free"]


def test_a_killed_rank_loses_the_attempt_and_the_next_goes_on_from_a_whole_checkpoint(house: House) -> None:
    job = house.job(n_epochs=60)
    supervisor = house.supervise(house.claim(job))
    eventually(lambda: len(house.checkpoints(job)) >= 3, within_s=END, what="three checkpoints are stored")
    os.kill(house.ranks()[0], signal.SIGKILL)
    assert supervisor.wait(END) == 0

    row = house.world.read(job)
    assert (row.state, row.attempts_used) == (JobState.QUEUED, 1), row.error
    assert house.world.attempts(job)[0].outcome is Outcome.LOST
    assert "logs.txt" in house.artifacts(job)
    whole, broken, newest = kept(house, job)
    damage(house, newest)
    break_state(house, broken)

    again = house.claim(job)
    ran_s = house.world.attempts(job)[0].ran_s
    assert ran_s > 0
    assert run_step(house.world.engine, load_work, again.token).spent_s == ran_s, (
        "it counts for max_duration_s"
    )
    assert house.supervise(again).wait(END) == 0
    row = house.world.read(job)
    assert (row.state, row.attempts_used) == (JobState.QUEUED, 1), (
        "the trainer refused what has the right sum"
    )

    assert house.supervise(house.claim(job)).wait(END) == 0
    row = house.world.read(job)
    assert row.state is JobState.SUCCEEDED, row.error
    notes = [event for event in house.world.events(job) if event.data.get("code") == "damaged_checkpoint"]
    assert [note.data["step"] for note in notes] == [newest.step, broken.step]
    third = house.world.attempts(job)[2]
    assert third.resume_from == whole.id
    assert min(m.step for m in house.metrics(job) if m.attempt_id == third.id) > whole.step
    assert len(kept(house, job)) == 3


def kept(house: House, job: str) -> list[Checkpoint]:
    return [checkpoint for checkpoint in house.checkpoints(job) if checkpoint.dropped_at is None]


def damage(house: House, checkpoint: Checkpoint) -> None:
    """Other bytes in the store."""
    key = f"{checkpoint.storage_prefix}/{checkpoint.manifest['files'][0]['name']}"
    open_store(house.settings.store_url).put_bytes(key, b"rotten")


def break_state(house: House, checkpoint: Checkpoint) -> None:
    """As if whoever wrote it had been broken: all sums are right, and torch cannot read it."""
    files = checkpoint.manifest["files"]
    entry = next(entry for entry in files if entry["name"] == "state.pt")
    stored = open_store(house.settings.store_url).put_bytes(
        f"{checkpoint.storage_prefix}/state.pt", b"PK rot"
    )
    changed = {**entry, "bytes": stored.size, "sha256": stored.sha256}
    manifest = {**checkpoint.manifest, "files": [changed if one is entry else one for one in files]}
    with transaction(house.world.engine) as session:
        session.execute(update(Checkpoint).where(Checkpoint.id == checkpoint.id).values(manifest=manifest))


@pytest.mark.parametrize("victim", ["supervisor", "launcher"])
def test_a_killed_process_leaves_no_trainer(house: House, victim: str) -> None:
    job = house.job(n_epochs=LONG)
    supervisor = house.supervise(house.claim(job))
    eventually(lambda: house.metrics(job), within_s=END, what="it trains")
    launcher = parent_of(parent_of(house.ranks()[0]))
    os.kill(supervisor.pid if victim == "supervisor" else launcher, signal.SIGKILL)
    eventually(lambda: not house.trainers(), within_s=10, what="no trainer is left")
    supervisor.wait(END)
    locks = [slot_lock_path(house.settings.work_dir, slot) for slot in (0, 1)]
    eventually(lambda: all(try_exclusive(lock) for lock in locks), within_s=10)
    if victim == "launcher":
        assert house.world.read(job).state is JobState.QUEUED
        assert house.world.attempts(job)[0].outcome is Outcome.LOST


def test_a_lost_token_fences_the_run(database_url: str, store_url: str, tmp_path: Path) -> None:
    with furnished(database_url, store_url, tmp_path, time_scale=0.1) as house:
        job = house.job(n_epochs=LONG)
        supervisor = house.supervise(house.claim(job))
        eventually(lambda: house.metrics(job), within_s=END, what="it trains")
        with transaction(house.world.engine) as session:
            session.execute(update(Attempt).where(Attempt.job_id == job).values(lease_token=uuid.uuid4()))
        assert supervisor.wait(END) == 0
        assert not house.trainers()
        assert house.world.attempts(job)[0].outcome is None, "it told nothing of its end"
        assert not house.artifacts(job)


def test_an_archive_that_climbs_out_fails_the_job_and_says_why(house: House) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../evil.png", b"x")
    job = house.job(archive=packed.getvalue())
    assert house.supervise(house.claim(job)).wait(END) == 0
    row = house.world.read(job)
    assert row.state is JobState.FAILED
    assert row.error is not None
    assert (row.error["code"], "'../evil.png'" in row.error["message"]) == ("bad_archive", True)
    assert house.world.slots() == ["free", "free"]
    assert not list(house.settings.work_dir.rglob("evil.png"))


def test_a_job_that_waits_for_its_published_weights_says_so_once(house: House) -> None:
    nowhere = {"kind": "published", "name": "V1", "url": "https://127.0.0.1:1/x.pth", "file_name": "x.pth"}
    job = house.job(weights={**nowhere, "sha256": "0" * 8})
    supervisor = house.supervise(house.claim(job))

    def told() -> list[str]:
        notes = [event for event in house.world.events(job) if event.data.get("code") == "waits_for_inputs"]
        return [event.message for event in notes]

    eventually(told, within_s=END, what="it says what it waits for")
    assert "https://127.0.0.1:1/x.pth" in told()[0]
    assert "tried again for 10 minutes" in told()[0]
    house.world.stop(job, StopReason.CANCEL)
    assert supervisor.wait(END) == 0
    assert house.world.read(job).state is JobState.CANCELLED
    assert len(told()) == 1


def test_an_error_of_the_trainer_fails_the_job_with_its_words(house: House) -> None:
    row = house.job(class_names=["zero", "one", *map(str, range(2, 10))])
    assert house.supervise(house.claim(row)).wait(END) == 0
    job = house.world.read(row)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "bad_data"
    assert "zero" in job.error["message"]


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[tuple[Postgres, Child]]:
    """A migrated server of this test's own, which it may stop."""
    server = Postgres.prepare(tmp_path / "server", durable=False)
    child = Child(server.part(tmp_path / "log"))
    child.wait_ready()
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=SOURCES,
        env={**os.environ, "THAW_DATABASE_URL": server.url("postgres")},
        check=True,
        capture_output=True,
    )
    yield server, child
    child.stop()


@pytest.mark.slow
def test_an_outage_of_the_database_holds_the_run_and_costs_only_a_pause(
    own_postgres: tuple[Postgres, Child], store_url: str, tmp_path: Path
) -> None:
    server, child = own_postgres
    with furnished(server.url("postgres"), store_url, tmp_path, time_scale=0.1) as house:
        job = house.job(n_epochs=LONG)
        supervisor = house.supervise(house.claim(job))
        eventually(lambda: house.metrics(job), within_s=END, what="it trains")
        ranks = house.ranks()
        child.stop()
        eventually(lambda: [state_of(pid) for pid in ranks] == ["T", "T"], within_s=20, what="it is held")
        again = Child(server.part(tmp_path / "log"))
        try:
            again.wait_ready()
            before = len(house.metrics(job))
            eventually(lambda: len(house.metrics(job)) > before, within_s=30, what="it trains on")
            assert house.ranks() == ranks
            house.world.stop(job, StopReason.CANCEL)
            assert supervisor.wait(END) == 0
            assert house.world.read(job).state is JobState.CANCELLED
        finally:
            house.world.engine.dispose()
            again.stop()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
