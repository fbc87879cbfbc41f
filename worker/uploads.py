"""What a run makes, brought to the store: checkpoints, shards and log while it runs, results at its end."""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import structlog

from shared.artifacts import ArtifactStore, StoredObject, StoreUnavailable
from shared.artifacts.keys import artifact_key, checkpoint_prefix
from shared.db.leases import Claim, StoredArtifact
from shared.domain.activations import is_shard
from shared.domain.events import LOG_FILE, MANIFEST_FILE, CheckpointLine, CheckpointManifest, ShardLine
from worker.interruption import Interrupted
from worker.patience import PATIENCE_S, patiently
from worker.run_files import NotAPlainFile, open_plain
from worker.upload_queue import UploadQueue

_LOG_EVERY_S = 10.0
_CHUNK_BYTES = 1024 * 1024
_LOOK_AGAIN_S = 0.2
_CHECKPOINT_FOLDER = re.compile(r"checkpoints/[A-Za-z0-9_-]+\Z")

# Training goes first on a host that has too few cores for both.
_NICENESS = 10


class Recorder(Protocol):
    """Whoever writes down what stands in the store now."""

    def checkpoint(self, manifest: CheckpointManifest, prefix: str) -> None:
        """A whole checkpoint, below `prefix`."""

    def shard(self, shard: StoredArtifact) -> None:
        """A whole shard."""

    def note(self, code: str, message: str, data: dict[str, Any]) -> None:
        """A warning for people."""


class NotWhole(Exception):
    """The run's own disk has damaged a checkpoint: its files are not what its manifest says."""


class UploadsBeside:
    """A thread that uploads checkpoints and shards in their order, and logs.txt when it grew.

    `recorder` is told of each checkpoint and shard that stands in the store; `shards` are those of this run
    by name, to be read once it is finished. `give_up` is called before each try. What the store did not take
    within `patience_s`, or the `seconds_left`, is left out: it may take the next again. The newest checkpoint
    is another matter once the run has stopped, see `finish`.
    """

    def __init__(
        self,
        store: ArtifactStore,
        claim: Claim,
        run: Path,
        recorder: Recorder,
        give_up: Callable[[], None],
        seconds_left: Callable[[], float],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.shards: dict[str, StoredArtifact] = {}
        self._store = store
        self._claim = claim
        self._run = run
        self._recorder = recorder
        self._give_up = give_up
        self._seconds_left = seconds_left
        self._patience_s = patience_s
        self._waiting = UploadQueue()
        self._is_behind = False
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._log_size = 0
        self._log_due = 0.0
        self._newest: CheckpointLine | None = None
        self._stored_step: int | None = None
        self._thread = threading.Thread(target=self._work, name=f"uploads-{claim.attempt_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()

    def add(self, line: CheckpointLine | ShardLine) -> None:
        """Upload this checkpoint or shard when those before it are done, or overtaken."""
        if isinstance(line, CheckpointLine):
            self._newest = line
        self._waiting.add(line)

    def check(self) -> None:
        """Raises what has ended the thread, if anything has."""
        if self._failure is not None:
            raise self._failure

    @property
    def has_stored_newest(self) -> bool:
        """Whether the newest checkpoint, if there is one, stands in the store."""
        return self._newest is None or self._newest.step == self._stored_step

    def finish(self, *, keep_newest: bool = False) -> None:
        """Wait until all is uploaded. Raises what has kept it from that.

        `keep_newest`: the newest checkpoint is what a stopped job goes on from. A store that is away is
        waited for with it, for all of the `seconds_left`; then StoreUnavailable is raised.
        """
        self._closing.set()
        self._thread.join()
        self.check()
        if keep_newest and self._newest is not None and not self.has_stored_newest:
            self._patience_s = math.inf
            self._bring_checkpoint(self._newest)

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        try:
            while not (self._closing.is_set() and self._waiting.is_empty()):
                self._unless_away(self._upload_next)
                self._unless_away(self._upload_log_when_due)
        except Interrupted:
            return  # the thread that runs the attempt sees the same by itself
        except Exception as error:
            self._failure = error

    def _unless_away(self, step: Callable[[], None]) -> None:
        try:
            step()
        except StoreUnavailable as away:
            structlog.get_logger(__name__).warning("not_stored", error=away.message)

    def _upload_next(self) -> None:
        line = self._waiting.next(_LOOK_AGAIN_S)
        if isinstance(line, ShardLine):
            self._upload_shard(_checked_shard(line.file))
        elif line is not None:
            self._bring_checkpoint(line)

    def _bring_checkpoint(self, line: CheckpointLine) -> None:
        folder, prefix = _checked_folder(line.folder), self._prefix(line.step)
        try:
            manifest = self._upload_checkpoint(folder, prefix)
        except FileNotFoundError:
            # Trainers keep the last few: a newer one waits.
            structlog.get_logger(__name__).warning("checkpoint_gone", folder=line.folder)
            return
        except NotWhole as error:
            self._warn(line, str(error))
            return
        except StoreUnavailable as away:
            self._warn(line, away.message)
            raise
        self._recorder.checkpoint(manifest, prefix)
        self._stored_step, self._is_behind = line.step, False

    def _upload_shard(self, name: str) -> None:
        key = artifact_key(*_place(self._claim), name)
        done = self._put(key, name)
        self.shards[name] = StoredArtifact(name=name, storage_key=key, bytes=done.size, sha256=done.sha256)
        self._recorder.shard(self.shards[name])

    def _upload_checkpoint(self, folder: str, prefix: str) -> CheckpointManifest:
        """All is opened before the first byte goes: what is open stays, though the trainer drops its name."""
        with ExitStack() as opened:
            file = opened.enter_context(open_plain(self._run, f"{folder}/{MANIFEST_FILE}"))
            manifest = _read_manifest(file)
            names = [entry.name for entry in manifest.files]
            files = [opened.enter_context(open_plain(self._run, f"{folder}/{name}")) for name in names]
            for entry, opened_file in zip(manifest.files, files, strict=True):
                found = self._put_open(f"{prefix}/{entry.name}", opened_file).sha256
                if found != entry.sha256:
                    raise NotWhole(f"{entry.name} on the node's disk is not what was written there")
            self._put_open(f"{prefix}/{MANIFEST_FILE}", file)
        return manifest

    def _warn(self, line: CheckpointLine, why: str) -> None:
        """Tells the first of several in a row."""
        if not self._is_behind:
            message = f"the checkpoint at step {line.step} is not in the store: {why}"
            self._recorder.note("checkpoint_not_stored", message, {"step": line.step})
        self._is_behind = True

    def _upload_log_when_due(self) -> None:
        log = self._run / LOG_FILE
        if time.monotonic() < self._log_due or not os.path.lexists(log):
            return
        self._log_due = time.monotonic() + _LOG_EVERY_S
        size = log.lstat().st_size
        if size != self._log_size:
            self._put(artifact_key(*_place(self._claim), LOG_FILE), LOG_FILE)
            self._log_size = size

    def _put(self, key: str, name: str) -> StoredObject:
        with open_plain(self._run, name) as file:
            return self._put_open(key, file)

    def _put_open(self, key: str, file: BinaryIO) -> StoredObject:
        step = partial(_put_open, self._store, key, file)
        return patiently(step, self._give_up, self._patience_s, self._seconds_left)

    def _prefix(self, step: int) -> str:
        return checkpoint_prefix(*_place(self._claim), step)


def upload_results(
    store: ArtifactStore,
    claim: Claim,
    run: Path,
    names: tuple[str, ...],
    give_up: Callable[[], None],
    seconds_left: Callable[[], float],
) -> list[StoredArtifact]:
    """Upload these files of the run as artifacts of the attempt. Raises NotAPlainFile for a missing one.

    A store that is away is waited for, for no more than the `seconds_left`; then StoreUnavailable is raised.
    """
    stored = []
    for name in names:
        key = artifact_key(*_place(claim), name)
        try:
            done = patiently(partial(_put, store, key, run, name), give_up, seconds_left=seconds_left)
        except FileNotFoundError as gone:
            raise NotAPlainFile(f"the run left no {name}") from gone
        stored.append(StoredArtifact(name=name, storage_key=key, bytes=done.size, sha256=done.sha256))
    return stored


def _put(store: ArtifactStore, key: str, run: Path, name: str) -> StoredObject:
    with open_plain(run, name) as file:
        return _put_open(store, key, file)


def _put_open(store: ArtifactStore, key: str, file: BinaryIO) -> StoredObject:
    file.seek(0)  # a try before this one may have read it
    return store.put_stream(key, iter(partial(file.read, _CHUNK_BYTES), b""))


def _read_manifest(file: BinaryIO) -> CheckpointManifest:
    try:
        return CheckpointManifest.model_validate_json(file.read())
    except ValueError as error:
        raise NotWhole(f"its manifest cannot be read: {error}") from error


def _place(claim: Claim) -> tuple[str, str, str]:
    return claim.team_id, claim.job_id, claim.attempt_id


def _checked_folder(folder: str) -> str:
    if not _CHECKPOINT_FOLDER.match(folder):
        raise NotAPlainFile(f"{folder!r} is no checkpoint's folder; it must be checkpoints/<name>")
    return folder


def _checked_shard(file: str) -> str:
    if not is_shard(file):
        raise NotAPlainFile(f"{file!r} is no shard of activations")
    return file
