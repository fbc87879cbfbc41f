"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO


@contextmanager
def written_whole(target: Path) -> Iterator[IO[bytes]]:
    """A file beside the target that takes its place when all went well, and is gone when not."""
    target.parent.mkdir(parents=True, exist_ok=True)
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
