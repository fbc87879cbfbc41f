"""What an uploaded file is, and whether it is whole: decided by its bytes, not by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

from api.services.parquet_file import looks_like_parquet, read_labelled_table
from shared.domain.datasets import Caps, open_archive, read_image_folder
from shared.domain.errors import Invalid
from shared.domain.weights_file import looks_like_safetensors, read_shapes
from shared.settings import Settings

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True)
class Inspected:
    """`format` is image_folder, parquet or weights; `details` is what was found inside."""

    format: str
    details: dict[str, Any]


def inspect(file: BinaryIO, settings: Settings) -> Inspected:
    """Read as much of a seekable file as it takes to know what it holds. Raises Invalid and TooLarge."""
    caps = Caps(settings.max_archive_files, settings.max_unpacked_bytes, settings.max_compression_ratio)
    file.seek(0)
    if file.read(4) in _ZIP_STARTS:
        return _archive(file, caps)
    if looks_like_parquet(file):
        table = read_labelled_table(file, caps)
        columns = {"image_column": table.image_column, "label_column": table.label_column}
        return Inspected("parquet", {**_classes(table.counts), **columns})
    if looks_like_safetensors(file):
        shapes = read_shapes(file)
        return Inspected("weights", {"n_tensors": len(shapes), "tensors": shapes})
    raise Invalid(
        "the file is neither a zip of class folders (cat/1.png, dog/1.png), nor a Parquet file "
        "with an image and a label column, nor a safetensors file",
        param="file",
        code="unknown_format",
    )


def _archive(file: BinaryIO, caps: Caps) -> Inspected:
    size = file.seek(0, 2)
    with open_archive(file, caps) as archive:
        found = read_image_folder(archive, size, caps)
    return Inspected("image_folder", {**_classes(found.counts), "n_ignored": found.n_ignored})


def _classes(counts: dict[str, int]) -> dict[str, Any]:
    return {
        "class_names": list(counts),
        "samples_per_class": counts,
        "n_samples": sum(counts.values()),
    }
