"""The checkpoint that a run goes on from: the newest that comes out of the store whole."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from shared.artifacts import ArtifactCorrupt, ArtifactNotFound, ArtifactStore, BadKey
from shared.db.work import ResumePoint
from shared.domain.events import MANIFEST_FILE, ManifestEntry
from worker.run_folder import write_whole


class Resuming(Protocol):
    """Whoever writes down what becomes of the checkpoints. Each may be told a second time."""

    def left_out(self, point: ResumePoint, why: str) -> None:
        """The checkpoint cannot be used, now and later."""

    def goes_on_from(self, point: ResumePoint | None) -> None:
        """The run goes on from there; None: it starts anew."""


class WritesNothing:
    """Of the nodes that leave it to node rank 0."""

    def left_out(self, point: ResumePoint, why: str) -> None:
        pass

    def goes_on_from(self, point: ResumePoint | None) -> None:
        pass


def fetch_checkpoint(
    store: ArtifactStore,
    points: Sequence[ResumePoint],
    folder: Path,
    resuming: Resuming,
    interrupted: Callable[[], None],
) -> Path | None:
    """Fetch the first of `points` (newest first) that is whole into `folder`; None: there is none.

    Each that is damaged or gone is left out, and `resuming` told so.
    """
    for point in points:
        target = folder / f"step-{point.step:06d}"
        try:
            _fetch(store, point, target, interrupted)
        except (ArtifactCorrupt, ArtifactNotFound, BadKey) as error:
            shutil.rmtree(target, ignore_errors=True)
            resuming.left_out(point, error.message)
        else:
            resuming.goes_on_from(point)
            return target
    resuming.goes_on_from(None)
    return None


def _fetch(store: ArtifactStore, point: ResumePoint, target: Path, interrupted: Callable[[], None]) -> None:
    if point.manifest is None:
        raise ArtifactCorrupt(f"the manifest of {point.storage_prefix!r} cannot be read")
    shutil.rmtree(target, ignore_errors=True)  # what an earlier try has begun
    target.mkdir(parents=True)
    for entry in point.manifest.files:
        fetch_file(store, f"{point.storage_prefix}/{entry.name}", target / entry.name, entry, interrupted)
    write_whole(target / MANIFEST_FILE, point.manifest.model_dump_json(indent=1))


def fetch_file(
    store: ArtifactStore, key: str, target: Path, expected: ManifestEntry, interrupted: Callable[[], None]
) -> None:
    """Fetch an object to the new file `target`, in pieces between which `interrupted` is called.

    Raises ArtifactCorrupt where size or sha256 are not `expected`, and ArtifactNotFound.
    """
    digest, size = hashlib.sha256(), 0
    chunks = store.stream(key)  # refuses a bad key, before its name becomes a file's
    with target.open("xb") as file:
        for data in chunks:
            interrupted()
            digest.update(data)
            size += len(data)
            file.write(data)
    found = digest.hexdigest()
    if (size, found) != (expected.bytes, expected.sha256):
        raise ArtifactCorrupt(
            f"{key!r} has {size} bytes with SHA-256 {found}; "
            f"{expected.bytes} with {expected.sha256} were stored"
        )
