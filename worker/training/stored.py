"""Pictures on the node's disk: which there are, and the bytes of each. Nothing is decoded here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class StoredPictures(Protocol):
    """Encoded pictures in an order that is the same on every rank and node."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What a person would call the picture."""

    def read(self, index: int) -> bytes:
        """Its encoded bytes."""


@dataclass(frozen=True)
class FolderPictures:
    """Files below a folder, by their paths relative to it."""

    root: Path
    paths: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> bytes:
        return (self.root / self.paths[index]).read_bytes()


@dataclass(frozen=True)
class ParquetPictures:
    """A column of one Parquet file, held in memory as it stands in the file."""

    file_name: str
    column: Any

    def __len__(self) -> int:
        return len(self.column)

    def name(self, index: int) -> str:
        return f"{self.file_name} row {index}"

    def read(self, index: int) -> bytes:
        value = self.column[index].as_py()
        return value if isinstance(value, bytes) else b""


def read_parquet(
    path: Path, image_column: str, label_column: str | None
) -> tuple[ParquetPictures, list[Any]]:
    """The labels as they are, and the pictures: binary, or a struct with `bytes` as Hugging Face has it."""
    import pyarrow as pa  # noqa: PLC0415  # heavy, and only jobs on Parquet need it
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pq.read_table(path, columns=[image_column, *([label_column] if label_column else [])])
    pictures = table.column(image_column)
    if pa.types.is_struct(pictures.type):
        pictures = pc.struct_field(pictures, "bytes")
    labels = table.column(label_column).to_pylist() if label_column else []
    return ParquetPictures(path.name, pictures), labels


def class_folders(root: Path) -> list[str]:
    """The folders in `root`, sorted."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not _is_hidden(entry.name))


def files_below(root: Path, folder: str = "") -> list[str]:
    """Every file below a folder of `root`, sorted. What is no picture is found out when it is read."""
    found: list[str] = []
    for directory, below, files in os.walk(root / folder):
        below[:] = [name for name in below if not _is_hidden(name)]
        relative = Path(directory).relative_to(root)
        found += [(relative / name).as_posix() for name in files if not _is_hidden(name)]
    return sorted(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
