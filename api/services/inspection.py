"""What an uploaded file is, and whether it is whole: decided by its bytes, not by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

from api.services.parquet_apart import looks_like_parquet, read_labelled_table_apart
from shared.domain.archive import Caps, open_archive
from shared.domain.datasets import read_data_set
from shared.domain.errors import Invalid
from shared.domain.weights_file import looks_like_safetensors, read_shapes
from shared.settings import Settings

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True)
class Inspected:
    """`format` is a data set's, parquet or weights; `details` is what was found inside.

    A data set's `details` say by `task` what its labels are for.
    """

    format: str
    details: dict[str, Any]


def inspect(file: BinaryIO, settings: Settings) -> Inspected:
    """Read as much of a seekable file as it takes to know what it holds. Raises Invalid and TooLarge."""
    caps = Caps(settings.max_archive_files, settings.max_unpacked_bytes, settings.max_compression_ratio)
    file.seek(0)
    if file.read(4) in _ZIP_STARTS:
        return _archive(file, caps)
    if looks_like_parquet(file):
        return Inspected("parquet", read_labelled_table_apart(file, caps))
    if looks_like_safetensors(file):
        shapes = read_shapes(file)
        return Inspected("weights", {"n_tensors": len(shapes), "tensors": shapes})
    raise Invalid(
        "the file is neither a zip of class folders (cat/1.png, dog/1.png), of pictures with labels.csv or "
        "with masks, "
        "nor a Parquet file with an image and a label column, nor a safetensors file",
        param="file",
        code="unknown_format",
    )


def _archive(file: BinaryIO, caps: Caps) -> Inspected:
    size = file.seek(0, 2)
    with open_archive(file, caps) as archive:
        found = read_data_set(archive, size, caps)
    return Inspected(found.format, {"task": found.task, **found.details})
