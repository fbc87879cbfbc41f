"""Files that are either whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content` aside, brings it to the disk and moves it to `path`."""
    aside = path.with_name(f".{path.name}.partial")
    write_durably(aside, content)
    aside.replace(path)


def write_durably(path: Path, content: bytes) -> None:
    """Writes `content` and waits until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, shape: BaseModel) -> None:
    write_whole(path, shape.model_dump_json(indent=1).encode() + b"\n")


def sync_folder(folder: Path) -> None:
    """Brings the names in `folder` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
