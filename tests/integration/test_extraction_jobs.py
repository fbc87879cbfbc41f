"""A supervisor with feature extractions: what stands in the store, what a lost try leaves to the next."""

from __future__ import annotations

import io
import json
import os
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dispatch_rows import World
from launched import eventually
from sqlalchemy import select
from supervised import House, digits_zip, resolved_job

from shared.db.engine import make_engine, transaction
from shared.db.models import Artifact
from shared.domain.activations import ActivationIndex
from shared.domain.job import JobState, Outcome, StopReason
from shared.domain.job_kind import JobKind
from shared.ids import new_id
from shared.settings import Settings
from thaw.activations import read_activations

END = 90.0


@pytest.fixture
def house(database_url: str, store_url: str, tmp_path: Path) -> Iterator[House]:
    """A stop is seen at the next renewal of the lease, here after a second."""
    settings = Settings(
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        store_url=store_url,
        work_dir=tmp_path / "work",
        time_scale=0.1,
    )
    engine = make_engine(database_url)
    world = World(engine).found()
    world.node()
    house = House(settings, world)
    yield house
    engine.dispose()
    eventually(lambda: not house.trainers(), within_s=10, what="no trainer is left")


def many_scans() -> bytes:
    """Each of 1,797 scans four times: to run them through a sample at a time takes longer than a stop."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(digits_zip(1797))) as once, zipfile.ZipFile(packed, "w") as often:
        for name in once.namelist():
            folder, _, file = name.partition("/")
            for copy in range(4):
                often.writestr(f"{folder}/{copy}-{file}", once.read(name))
    return packed.getvalue()


def extraction(house: House, *, batch_size: int = 16, data: bytes | None = None, **wanted: Any) -> str:
    """A queued extraction for both slots, of custom_network on the digits."""
    training = resolved_job()["resolved"]
    kept = {name: training[name] for name in ("task", "target", "weights", "class_names", "preprocessing")}
    return house.world.job(
        id=new_id("fxjob"),
        kind=JobKind.FEATURE_EXTRACTION,
        resolved={
            **kept,
            "wanted": {"modules": ["conv1", "fc"], "max_bytes": 10**9, **wanted},
            "batch_size": batch_size,
            "max_duration_s": None,
            "seed": 7,
        },
        freeze_plan=None,
        training_file_id=house.file(digits_zip(100) if data is None else data),
        devices_per_node=2,
    )


def shards(house: House, job: str) -> list[Artifact]:
    with transaction(house.world.engine) as session:
        query = select(Artifact).where(Artifact.job_id == job, Artifact.name.like("%shard-%"))
        return list(session.scalars(query.order_by(Artifact.name)))


def test_an_extraction_on_two_ranks_leaves_its_activations_as_artifacts(house: House, tmp_path: Path) -> None:
    job = extraction(house)
    assert house.supervise(house.claim(job)).wait(END) == 0, "0 also says that the supervisor has no torch"

    row = house.world.read(job)
    assert row.state is JobState.SUCCEEDED, row.error
    assert row.trained_at is not None
    assert row.progress is not None
    assert row.progress["extraction"]["n_done"] == 100
    assert row.result is not None
    assert row.result["network_proof"]["unchanged"] is True
    assert not house.metrics(job)
    assert not house.checkpoints(job)
    folder = house.fetched(job, tmp_path / "result")
    index = ActivationIndex.model_validate_json((folder / "activations/index.json").read_bytes())
    shard_names = {f"activations/{shard.file}" for shard in index.shards}
    others = {"activations/index.json", "activations/samples.jsonl", "result.json", "logs.txt"}
    assert house.artifacts(job).keys() == shard_names | others
    found = read_activations(folder)
    assert found["fc"].shape == (100, 10)
    assert [sample.label for sample in found.samples] == [s.name.partition("/")[0] for s in found.samples]
    assert house.world.slots() == ["free", "free"]


@pytest.mark.slow
def test_a_lost_try_leaves_whole_shards_to_the_next(house: House, tmp_path: Path) -> None:
    job = extraction(house, batch_size=2, data=digits_zip(1797))
    supervisor = house.supervise(house.claim(job))
    eventually(lambda: len(shards(house, job)) >= 2, within_s=END, what="two shards are stored")
    os.kill(house.ranks()[0], signal.SIGKILL)
    assert supervisor.wait(END) == 0
    first = house.world.attempts(job)[0]
    assert (first.outcome, house.world.read(job).state) == (Outcome.LOST, JobState.QUEUED)
    kept = {shard.name: shard.sha256 for shard in shards(house, job)}

    assert house.supervise(house.claim(job)).wait(END) == 0
    row = house.world.read(job)
    assert row.state is JobState.SUCCEEDED, row.error
    by_attempt = {shard.name: shard.attempt_id for shard in shards(house, job)}
    assert {name for name, attempt in by_attempt.items() if attempt == first.id} == kept.keys()
    assert len(by_attempt) > len(kept)
    folder = house.fetched(job, tmp_path / "result")
    listed = json.loads((folder / "activations/index.json").read_text())
    assert {f"activations/{s['file']}": s["sha256"] for s in listed["shards"]}.items() >= kept.items()
    assert read_activations(folder)["fc"].shape == (1797, 10)


@pytest.mark.slow
def test_a_cancelled_extraction_stops_between_two_batches(house: House) -> None:
    job = extraction(house, batch_size=2, data=many_scans())
    supervisor = house.supervise(house.claim(job))
    eventually(lambda: shards(house, job), within_s=END, what="a shard is stored")
    house.world.stop(job, StopReason.CANCEL)
    assert supervisor.wait(END) == 0

    assert house.world.read(job).state is JobState.CANCELLED
    assert house.world.attempts(job)[0].outcome is Outcome.STOPPED
    assert "activations/index.json" not in house.artifacts(job)
    assert house.world.slots() == ["free", "free"]


def test_an_extraction_of_a_module_that_is_never_called_fails_with_the_trainers_words(house: House) -> None:
    job = extraction(house, modules=["fc", "fc2"])
    assert house.supervise(house.claim(job)).wait(END) == 0
    row = house.world.read(job)
    assert row.state is JobState.FAILED
    assert row.error is not None
    assert (row.error["code"], "'fc2'" in row.error["message"]) == ("unknown_module", True)
