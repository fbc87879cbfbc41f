"""Zips of pictures, unpacked into a folder: checked again, for what was stored may have changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shared.domain.archive import Caps, open_archive, pieces
from shared.domain.datasets import read_data_set


def unpack(archive: Path, target: Path, caps: Caps, interrupted: Callable[[], None]) -> None:
    """Unpack a data set's zip into the new folder `target`, without the one folder that may hold it all.

    Raises Invalid for what is no such archive, climbs out or holds links, TooLarge beyond `caps`.
    `interrupted` is called between pieces; what it raises is raised on.
    """
    target.mkdir(mode=0o755)
    with archive.open("rb") as file, open_archive(file, caps) as opened:
        for packed in read_data_set(opened, archive.stat().st_size, caps).files:
            interrupted()
            path = target / packed.path
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with path.open("xb") as out:
                for data in pieces(opened, packed.member):
                    out.write(data)
