"""Files of a job brought here: written aside, checked against the server's list, then put in place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from thaw.errors import DamagedDownload, UsageError
from thaw.packing import file_sha256
from thaw.shapes import Artifact
from thaw.transport import Transport
from thaw.whole_files import written_whole

# Called with the bytes that have come, or were sent, and all there are.
Progress = Callable[[int, int], None]


def fetch(
    transport: Transport,
    path: str,
    artifact: Artifact,
    folder: Path,
    progress: Progress | None = None,
    *,
    called: str | None = None,
) -> Path:
    """The artifact in `folder`, there `called` so, fetched unless the same bytes are there already.

    Raises DamagedDownload when other bytes came than the server lists; nothing is left in place then.
    """
    target = inside(folder, called or artifact.name)
    if target.is_file() and file_sha256(target) == artifact.sha256:
        return target
    with written_whole(target) as out:
        found = _write(transport, path, artifact.bytes, out, progress)
        if found != artifact.sha256:
            raise DamagedDownload(
                f"{artifact.name}: its sha256 is {found}, the server lists {artifact.sha256}"
            )
    return target


def inside(folder: Path, name: str) -> Path:
    """Where the artifact goes. Raises UsageError for a name that leads out of the folder."""
    target = (folder / name).resolve()
    if not target.is_relative_to(folder.resolve()) or target == folder.resolve():
        raise UsageError(f"the artifact's name {name!r} leads out of {folder}; it is not written")
    return target


def _write(transport: Transport, path: str, total: int, out: IO[bytes], progress: Progress | None) -> str:
    digest = hashlib.sha256()
    done = 0
    with transport.stream(path) as response:
        for chunk in response.iter_bytes():
            out.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
    return digest.hexdigest()
