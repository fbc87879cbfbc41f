"""Image-folder archives, unpacked into class folders: checked again, for what was stored may have changed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from shared.domain.datasets import Caps, Sample, open_archive, read_image_folder
from shared.domain.errors import Invalid, TooLarge

_CHUNK_BYTES = 1024 * 1024


def unpack(archive: Path, target: Path, caps: Caps, interrupted: Callable[[], None]) -> None:
    """Unpack a zip of class folders into the new folder `target`, as `<class>/<picture>`.

    Raises Invalid for what is no such archive, climbs out or holds links, TooLarge beyond `caps`.
    `interrupted` is called between pieces; what it raises is raised on.
    """
    target.mkdir(mode=0o755)
    with archive.open("rb") as file, open_archive(file, caps) as opened:
        for sample in read_image_folder(opened, archive.stat().st_size, caps).samples:
            interrupted()
            try:
                _unpack_one(opened, sample, target)
            except (zipfile.BadZipFile, EOFError, zlib.error) as error:
                raise Invalid(f"{sample.member!r} cannot be unpacked: {error}", code="bad_archive") from error


def _unpack_one(archive: zipfile.ZipFile, sample: Sample, target: Path) -> None:
    stated = archive.getinfo(sample.member).file_size
    folder = target / sample.class_name
    folder.mkdir(mode=0o755, exist_ok=True)
    written = 0
    with archive.open(sample.member) as packed, (folder / sample.file_name).open("xb") as file:
        # The caps were held against the sizes that the archive states: no byte more may come out of it.
        while data := packed.read(_CHUNK_BYTES):
            written += len(data)
            if written > stated:
                raise TooLarge(f"{sample.member!r} unpacks to more than the {stated} bytes that it states")
            file.write(data)
