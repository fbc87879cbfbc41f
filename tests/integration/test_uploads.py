"""Uploads beside a run: a store that is away for too long costs what it missed, and no more."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from shared.artifacts import StoredObject, StoreUnavailable, open_store
from shared.db.leases import Claim, StoredArtifact
from shared.domain.events import CheckpointLine, CheckpointManifest, ManifestEntry, ShardLine
from worker.run_files import NotAPlainFile
from worker.uploads import UploadsBeside

CLAIM = Claim(
    allocation_id="alloc-1",
    attempt_id="attempt-1",
    job_id="ftjob-1",
    team_id="team-1",
    token=uuid.uuid4(),
    node_rank=0,
    slots=[0],
    attempt_number=1,
    nodes=1,
    master_addr="127.0.0.1",
    master_port=1,
    attempt_running=True,
)
WEIGHTS = b"weights"


class Beside:
    """A run's folder, a store in another, and what was recorded as stored."""

    def __init__(self, tmp_path: Path) -> None:
        self.run, self.folder = tmp_path / "run", tmp_path / "store"
        self.run.mkdir()
        self.store = open_store(self.folder.as_uri())
        self.recorded: list[int] = []
        self.notes: list[str] = []
        self.shards: list[StoredArtifact] = []
        self.tries = 0
        self.patience_s, self.seconds_left = 0.1, math.inf

    def uploads(self) -> UploadsBeside:
        return UploadsBeside(
            self.store,
            CLAIM,
            self.run,
            self,
            self._try,
            lambda: self.seconds_left,
            patience_s=self.patience_s,
        )

    def write_checkpoint(self, step: int) -> CheckpointLine:
        folder = self.run / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(WEIGHTS)
        entry = ManifestEntry(name="weights", bytes=7, sha256=hashlib.sha256(WEIGHTS).hexdigest())
        manifest = CheckpointManifest(epoch=1, step=step, is_best=False, metrics={}, files=[entry])
        (folder / "manifest.json").write_text(manifest.model_dump_json())
        name = f"checkpoints/step-{step}"
        return CheckpointLine(time=time.time(), epoch=1, step=step, folder=name, is_best=False, metrics={})

    def write_shard(self, number: int) -> ShardLine:
        file = f"activations/shard-{number:05d}.safetensors"
        (self.run / "activations").mkdir(exist_ok=True)
        (self.run / file).write_bytes(WEIGHTS)
        return ShardLine(time=time.time(), file=file, n_samples=1)

    def drop(self, step: int) -> None:
        """As the trainer does it: the name goes first."""
        folder = self.run / "checkpoints" / f"step-{step}"
        shutil.rmtree(folder.rename(folder.with_name(f".step-{step}")))

    def checkpoint(self, manifest: CheckpointManifest, prefix: str) -> None:
        """Recorded: now all of it must stand in the store, the manifest too."""
        stored = json.loads(b"".join(self.store.stream(f"{prefix}/manifest.json")))
        assert CheckpointManifest.model_validate(stored) == manifest
        assert b"".join(self.store.stream(f"{prefix}/weights")) == WEIGHTS
        self.recorded.append(manifest.step)

    def shard(self, shard: StoredArtifact) -> None:
        self.shards.append(shard)

    def note(self, code: str, message: str, data: dict[str, Any]) -> None:
        self.notes.append(f"{code} {data['step']}")

    def _try(self) -> None:
        self.tries += 1


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    return Beside(tmp_path)


def test_a_store_that_was_away_gets_what_comes_after(beside: Beside) -> None:
    aside = beside.folder.with_name("aside")
    with beside.uploads() as uploads:
        beside.folder.rename(aside)
        beside.folder.touch()
        uploads.add(beside.write_checkpoint(1))
        eventually(lambda: beside.tries > 0, within_s=10)
        time_out = beside.tries
        uploads.add(beside.write_checkpoint(2))
        eventually(lambda: beside.tries > time_out, within_s=10)
        uploads.check()
        beside.folder.unlink()
        aside.rename(beside.folder)
        uploads.add(beside.write_checkpoint(3))
        uploads.finish()
    assert beside.recorded[-1] == 3
    assert 1 not in beside.recorded
    assert beside.notes[0] == "checkpoint_not_stored 1"
    assert len(beside.notes) == 1, "an outage is told once"


def test_a_cancelled_run_does_not_wait_for_a_store_that_is_away(beside: Beside) -> None:
    beside.patience_s = 600.0
    with beside.uploads() as uploads:
        beside.folder.rename(beside.folder.with_name("aside"))
        beside.folder.touch()
        uploads.add(beside.write_checkpoint(1))
        uploads.add(beside.write_checkpoint(2))
        eventually(lambda: beside.tries > 1, within_s=10)
        beside.seconds_left = 0.0
        begun = time.monotonic()
        uploads.finish()
        assert time.monotonic() - begun < 10
    assert beside.recorded == []


def test_the_last_checkpoint_of_a_stopped_run_is_kept_through_any_patience(beside: Beside) -> None:
    aside = beside.folder.with_name("aside")
    with beside.uploads() as uploads, ThreadPoolExecutor(1) as pool:
        beside.folder.rename(aside)
        beside.folder.touch()
        uploads.add(beside.write_checkpoint(1))
        uploads.add(beside.write_checkpoint(2))
        finishing = pool.submit(uploads.finish, keep_newest=True)
        eventually(lambda: beside.tries >= 4, within_s=10)
        assert not finishing.done()
        assert not uploads.has_stored_newest
        beside.folder.unlink()
        aside.rename(beside.folder)
        finishing.result(timeout=30)
        assert uploads.has_stored_newest
    assert beside.recorded == [2], "the one before it had its time"


def test_a_stopped_run_that_must_be_gone_says_that_its_checkpoint_is_not_stored(beside: Beside) -> None:
    beside.seconds_left = 0.0
    with beside.uploads() as uploads:
        beside.folder.rename(beside.folder.with_name("aside"))
        beside.folder.touch()
        uploads.add(beside.write_checkpoint(1))
        with pytest.raises(StoreUnavailable):
            uploads.finish(keep_newest=True)
        assert not uploads.has_stored_newest
    assert beside.recorded == []


def test_a_checkpoint_behind_a_link_is_told_at_once(beside: Beside, tmp_path: Path) -> None:
    line = beside.write_checkpoint(1)
    (beside.run / "checkpoints").rename(tmp_path / "elsewhere")
    (beside.run / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with beside.uploads() as uploads:
        uploads.add(line)
        with pytest.raises(NotAPlainFile):
            eventually(uploads.check, within_s=10)
    assert beside.recorded == []


def test_a_shard_is_an_artifact_as_soon_as_it_is_stored(beside: Beside) -> None:
    with beside.uploads() as uploads:
        uploads.add(beside.write_shard(0))
        eventually(lambda: beside.shards, within_s=10)
        uploads.add(beside.write_shard(1))
        uploads.finish()

    assert [shard.name for shard in beside.shards] == [
        "activations/shard-00000.safetensors",
        "activations/shard-00001.safetensors",
    ]
    assert uploads.shards == {shard.name: shard for shard in beside.shards}
    for shard in beside.shards:
        assert b"".join(beside.store.stream(shard.storage_key)) == WEIGHTS
        assert shard.sha256 == hashlib.sha256(WEIGHTS).hexdigest()


def test_a_shard_behind_a_link_or_of_another_name_is_told_at_once(beside: Beside, tmp_path: Path) -> None:
    line = beside.write_shard(0)
    (beside.run / line.file).unlink()
    (tmp_path / "secret").write_bytes(WEIGHTS)
    (beside.run / line.file).symlink_to(tmp_path / "secret")
    for bad in (line, line.model_copy(update={"file": "activations/../secret"})):
        with beside.uploads() as uploads:
            uploads.add(bad)
            with pytest.raises(NotAPlainFile):
                eventually(uploads.check, within_s=10)
    assert beside.shards == []


class Slow:
    """A store that takes its first bytes only when it is let; `order` are the keys, as they were written."""

    def __init__(self, beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.let, self.order = threading.Event(), threading.Event(), list[str]()
        self._put = beside.store.put_stream
        monkeypatch.setattr(beside.store, "put_stream", self.put_stream)

    def put_stream(self, key: str, chunks: Iterator[bytes]) -> StoredObject:
        self.began.set()
        assert self.let.wait(10)
        self.order.append(key.partition("checkpoints/")[2])
        return self._put(key, chunks)


def test_a_slow_store_gets_the_one_it_began_and_then_the_newest_whatever_the_trainer_drops(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(beside, monkeypatch)
    with beside.uploads() as uploads:
        uploads.add(beside.write_checkpoint(1))
        assert slow.began.wait(10)
        for step in (2, 3, 4):
            uploads.add(beside.write_checkpoint(step))
        for step in (1, 2):
            beside.drop(step)
        slow.let.set()
        uploads.finish()
    assert beside.recorded == [1, 4]
    assert slow.order == [
        f"step-00000000{step}/{name}" for step in (1, 4) for name in ("weights", "manifest.json")
    ]


def test_a_checkpoint_that_the_nodes_disk_damaged_is_not_recorded_and_told(beside: Beside) -> None:
    with beside.uploads() as uploads:
        line = beside.write_checkpoint(1)
        (beside.run / line.folder / "weights").write_bytes(b"WEIGHTS")
        uploads.add(line)
        eventually(lambda: beside.notes, within_s=10)
        line = beside.write_checkpoint(2)
        (beside.run / line.folder / "manifest.json").write_bytes(b"{")
        uploads.add(line)
        eventually(uploads._waiting.is_empty, within_s=10)
        uploads.add(beside.write_checkpoint(3))
        uploads.finish()
    assert beside.recorded == [3]
    assert beside.notes == ["checkpoint_not_stored 1"]


def test_one_that_is_gone_before_its_turn_is_no_trouble(beside: Beside) -> None:
    line = beside.write_checkpoint(1)
    beside.drop(1)
    with beside.uploads() as uploads:
        uploads.add(line)
        eventually(uploads._waiting.is_empty, within_s=10)
        uploads.add(beside.write_checkpoint(2))
        uploads.finish()
    assert (beside.recorded, beside.notes) == ([2], [])
