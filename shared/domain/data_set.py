"""What is known of an uploaded data set without looking at its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from shared.domain.archive import PackedFile
from shared.domain.spec import TaskName

ArchiveFormat = Literal["image_folder", "labelled_images", "masked_images"]
PICTURE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
MAX_LABEL = 1000


@dataclass(frozen=True)
class DataSet:
    """The files of an archive, in the order of their names, and what its labels are for.

    `details` holds `class_names` in the order of the class numbers, `n_samples`, and what else is counted.
    """

    format: ArchiveFormat
    task: TaskName
    files: tuple[PackedFile, ...]
    details: dict[str, Any]


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return f".{name.rpartition('.')[2].lower()}" in PICTURE_SUFFIXES
