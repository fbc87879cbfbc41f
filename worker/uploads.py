"""What a run makes, brought to the store: checkpoints and log beside the training, results at its end."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from shared.artifacts import ArtifactStore
from shared.artifacts.keys import artifact_key, checkpoint_prefix
from shared.db.leases import Claim, StoredArtifact
from shared.domain.events import LOG_FILE, MANIFEST_FILE, RESULT_FILE, CheckpointLine, CheckpointManifest
from worker.interruption import Interrupted
from worker.patience import patiently

RESULT_FILES = ("model.safetensors", "model.json", "trainable.safetensors", RESULT_FILE, "metrics.jsonl")
_LOG_EVERY_S = 10.0
_LOOK_AGAIN_S = 0.2
_CHECKPOINT_FOLDER = re.compile(r"checkpoints/[A-Za-z0-9_-]+\Z")

Record = Callable[[CheckpointManifest, str], None]


class NotAPlainFile(Exception):
    """A trainer left a link or nothing where a file must be."""


class UploadsBeside:
    """A thread that uploads checkpoints in their order, and logs.txt when it grew.

    `record` is called with each checkpoint that stands in the store. `give_up` is called before each try.
    """

    def __init__(
        self, store: ArtifactStore, claim: Claim, run: Path, record: Record, give_up: Callable[[], None]
    ) -> None:
        self._store = store
        self._claim = claim
        self._run = run
        self._record = record
        self._give_up = give_up
        self._waiting: queue.SimpleQueue[CheckpointLine] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._log_size = 0
        self._log_due = 0.0
        self._thread = threading.Thread(target=self._work, name=f"uploads-{claim.attempt_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()

    def add(self, line: CheckpointLine) -> None:
        """Upload this checkpoint when those before it are done."""
        self._waiting.put(line)

    def check(self) -> None:
        """Raises what has ended the thread, if anything has."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Wait until all is uploaded. Raises what has kept it from that."""
        self._closing.set()
        self._thread.join()
        self.check()

    def _work(self) -> None:
        try:
            while not (self._closing.is_set() and self._waiting.empty()):
                self._upload_next()
                self._upload_log_when_due()
        except Interrupted:
            return  # the thread that runs the attempt sees the same by itself
        except Exception as error:
            self._failure = error

    def _upload_next(self) -> None:
        try:
            line = self._waiting.get(timeout=_LOOK_AGAIN_S)
        except queue.Empty:
            return
        folder, prefix = self._run / _checked_folder(line.folder), self._prefix(line.step)
        try:
            manifest = self._upload_checkpoint(folder, prefix)
        except FileNotFoundError:
            # Trainers keep the last few: a store that was slow or away for long can be too late for one.
            structlog.get_logger(__name__).warning("checkpoint_gone", folder=line.folder)
            return
        self._record(manifest, prefix)

    def _upload_checkpoint(self, folder: Path, prefix: str) -> CheckpointManifest:
        manifest_file = plain_file(folder / MANIFEST_FILE)
        manifest = CheckpointManifest.model_validate_json(manifest_file.read_bytes())
        for entry in manifest.files:
            self._put(f"{prefix}/{entry.name}", plain_file(folder / entry.name))
        self._put(f"{prefix}/{MANIFEST_FILE}", manifest_file)
        return manifest

    def _upload_log_when_due(self) -> None:
        log = self._run / LOG_FILE
        if time.monotonic() < self._log_due or not log.exists():
            return
        self._log_due = time.monotonic() + _LOG_EVERY_S
        size = log.stat().st_size
        if size != self._log_size:
            self._put(artifact_key(*_place(self._claim), LOG_FILE), plain_file(log))
            self._log_size = size

    def _put(self, key: str, path: Path) -> None:
        patiently(lambda: self._store.put_file(key, path), self._give_up)

    def _prefix(self, step: int) -> str:
        return checkpoint_prefix(*_place(self._claim), step)


def upload_results(
    store: ArtifactStore, claim: Claim, run: Path, names: tuple[str, ...], give_up: Callable[[], None]
) -> list[StoredArtifact]:
    """Upload these files of the run as artifacts of the attempt. Raises NotAPlainFile for a missing one."""
    stored = []
    for name in names:
        key, path = artifact_key(*_place(claim), name), _must_exist(run / name)
        done = patiently(partial(store.put_file, key, path), give_up)
        stored.append(StoredArtifact(name=name, storage_key=key, bytes=done.size, sha256=done.sha256))
    return stored


def plain_file(path: Path) -> Path:
    """The path itself. Raises NotAPlainFile for a link: what it leads to is not the trainer's to give."""
    if path.is_symlink():
        raise NotAPlainFile(f"{path.name} is a link; a run's results are plain files")
    return path


def _must_exist(path: Path) -> Path:
    if not plain_file(path).is_file():
        raise NotAPlainFile(f"the run left no {path.name}")
    return path


def _place(claim: Claim) -> tuple[str, str, str]:
    return claim.team_id, claim.job_id, claim.attempt_id


def _checked_folder(folder: str) -> str:
    if not _CHECKPOINT_FOLDER.match(folder):
        raise NotAPlainFile(f"{folder!r} is no checkpoint's folder; it must be checkpoints/<name>")
    return folder
