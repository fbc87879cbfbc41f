"""A Parquet file is read apart: what it unpacks to costs its own upload and not the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.services import parquet_apart
from api.services.parquet_apart import read_labelled_table_apart
from shared.domain.archive import Caps
from shared.domain.errors import TooLarge

CAPS = Caps(files=1000, unpacked_bytes=10**12, ratio=200.0)
MIB = 1024**2


def test_a_page_that_unpacks_past_the_memory_it_may_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = pa.array(["a" * 150 * MIB], pa.large_string())
    path = tmp_path / "bomb.parquet"
    table = pa.table({"image": [b"x"], "label": label})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    assert path.stat().st_size < MIB
    monkeypatch.setattr(parquet_apart, "MEMORY_BYTES", 320 * MIB)

    with path.open("rb") as file, pytest.raises(TooLarge, match=r"within 320 MiB.* smaller row groups"):
        read_labelled_table_apart(file, CAPS)


def test_a_file_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_apart, "SECONDS", 0.01)
    with uploaded() as file, pytest.raises(TooLarge, match="120 s"):
        read_labelled_table_apart(file, CAPS)


def test_a_small_upload_that_was_in_memory_is_read() -> None:
    with uploaded() as file:
        found = read_labelled_table_apart(file, CAPS)
    assert (found["task"], found["class_names"]) == ("classification", ["a", "b"])


@contextmanager
def uploaded() -> Iterator[BinaryIO]:
    """A file as the server holds it."""
    with SpooledTemporaryFile(max_size=MIB) as file:
        pq.write_table(pa.table({"image": [b"x", b"y"], "label": ["a", "b"]}), file)
        yield cast(BinaryIO, file)
