"""Labelled pictures on the node's disk: which there are, and the bytes of each. Nothing is decoded here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.domain.events import DataSource
from worker.training.errors import TrainingFailed


class Samples(Protocol):
    """Labelled pictures in an order that is the same on every rank and node."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class number of each picture."""

    def name(self, index: int) -> str:
        """What a person would call the picture."""

    def read(self, index: int) -> bytes:
        """Its encoded bytes."""


def open_samples(source: DataSource, class_names: Sequence[str]) -> Samples:
    """The samples of `source`. Raises TrainingFailed for a class that is not among `class_names`."""
    if source.format == "image_folder":
        samples: Samples = open_folder(Path(source.path), class_names)
    else:
        assert source.image_column is not None
        assert source.label_column is not None
        samples = open_parquet(Path(source.path), source.image_column, source.label_column, class_names)
    if len(samples.labels) == 0:
        raise TrainingFailed("the data set has no pictures", code="bad_data")
    return samples


@dataclass(frozen=True)
class FolderSamples:
    """root/<class>/**/<picture>"""

    root: Path
    paths: list[str]
    labels: NDArray[np.int64]

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> bytes:
        return (self.root / self.paths[index]).read_bytes()


def open_folder(root: Path, class_names: Sequence[str]) -> FolderSamples:
    number = {name: i for i, name in enumerate(class_names)}
    folders = sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and not _is_hidden(entry.name)
    )
    _check_classes([name for name in folders if name not in number], class_names)
    found = [(path, number[folder]) for folder in folders for path in _pictures_below(root, folder)]
    return FolderSamples(root, [path for path, _ in found], np.array([n for _, n in found], dtype=np.int64))


def _pictures_below(root: Path, folder: str) -> list[str]:
    """Every file below a class folder: one that is no picture is found out when it is read, and named."""
    found: list[str] = []
    for directory, below, files in os.walk(root / folder):
        below[:] = [name for name in below if not _is_hidden(name)]
        relative = Path(directory).relative_to(root)
        found += [(relative / name).as_posix() for name in files if not _is_hidden(name)]
    return sorted(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


@dataclass(frozen=True)
class ParquetSamples:
    """One Parquet file. Its encoded pictures are held in memory, as they stand in the file."""

    file_name: str
    pictures: Any
    labels: NDArray[np.int64]

    def name(self, index: int) -> str:
        return f"{self.file_name} row {index}"

    def read(self, index: int) -> bytes:
        value = self.pictures[index].as_py()
        return value if isinstance(value, bytes) else b""


def open_parquet(
    path: Path, image_column: str, label_column: str, class_names: Sequence[str]
) -> ParquetSamples:
    """Pictures are binary, or a struct with `bytes` as Hugging Face writes them; labels are class names."""
    import pyarrow as pa  # noqa: PLC0415  # heavy, and only jobs on Parquet need it
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pq.read_table(path, columns=[image_column, label_column])
    pictures = table.column(image_column)
    if pa.types.is_struct(pictures.type):
        pictures = pc.struct_field(pictures, "bytes")
    labels = [str(value) for value in table.column(label_column).to_pylist()]
    number = {name: i for i, name in enumerate(class_names)}
    _check_classes(sorted(set(labels) - number.keys()), class_names)
    return ParquetSamples(path.name, pictures, np.array([number[label] for label in labels], dtype=np.int64))


def _check_classes(unknown: Sequence[str], class_names: Sequence[str]) -> None:
    if unknown:
        known = ", ".join(class_names[:20])
        raise TrainingFailed(
            f"the data has other classes than the job: {', '.join(unknown[:20])}; the job's are {known}",
            code="bad_data",
        )
