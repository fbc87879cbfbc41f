"""Files of a job brought here: written aside, checked against the server's list, then put in place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from thaw.errors import DamagedDownload, UsageError
from thaw.packing import file_sha256
from thaw.shapes import Artifact
from thaw.transport import Transport

# Called with the bytes received so far and all there are.
Progress = Callable[[int, int], None]


def fetch(
    transport: Transport, path: str, artifact: Artifact, folder: Path, progress: Progress | None = None
) -> Path:
    """The artifact in `folder`, fetched unless the same bytes are there already.

    Raises DamagedDownload when other bytes came than the server lists; nothing is left in place then.
    """
    target = inside(folder, artifact.name)
    if target.is_file() and file_sha256(target) == artifact.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _aside(target) as out:
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


@contextmanager
def _aside(target: Path) -> Iterator[IO[bytes]]:
    """A file beside the target that takes its place when all went well, and is gone when not."""
    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as out:
        aside = Path(out.name)
        try:
            yield out
            out.flush()
            aside.chmod(0o666 & ~_umask())
            aside.replace(target)
        except BaseException:
            with suppress(FileNotFoundError):
                aside.unlink()
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
