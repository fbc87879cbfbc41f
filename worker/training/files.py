"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from shared.domain.disk_full import is_disk_full


@contextmanager
def unless_disk_full() -> Iterator[None]:
    """Around what may be left out where there is no room for it."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content` aside, brings it to the disk and moves it to `path`; or leaves nothing behind."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        write_durably(aside, content)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def write_durably(path: Path, content: bytes) -> None:
    """Writes `content` and waits until the disk has it."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # A write names no file; whoever reads of a full disk wants to know which.
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, shape: BaseModel) -> None:
    write_whole(path, shape.model_dump_json(indent=1).encode() + b"\n")


def sync_folder(folder: Path) -> None:
    """Brings the names in `folder` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
