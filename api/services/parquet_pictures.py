"""Whether a Parquet file's column of pictures holds any. Which of them can be read, training finds out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.domain.errors import Invalid

_BATCH_ROWS = 256


def check_pictures(file: BinaryIO, column: str) -> None:
    """Raises Invalid where every row of `column` is null, and Arrow's own errors.

    It reads up to the first that is not, and nothing where the file's statistics tell of one.
    """
    table = pq.ParquetFile(file)
    if not _statistics_tell(table.metadata, column) and not any(_are_there(table, column)):
        raise Invalid(
            f"column {column!r} holds no picture: all of its {table.metadata.num_rows:,} rows are null",
            param="file",
            code="bad_data_file",
        )


def _statistics_tell(metadata: pq.FileMetaData, column: str) -> bool:
    """Whether they count a row that is not null. They may be left out."""
    leaf = next(i for i in range(metadata.num_columns) if _is_of(metadata.schema.column(i).path, column))
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group).column(leaf).statistics
        if found is not None and found.num_values > 0:  # without the nulls
            return True
    return False


def _is_of(path: str, column: str) -> bool:
    """The pictures' bytes may lie in a struct, beside a path."""
    return path == column or (path.startswith(f"{column}.") and path.rpartition(".")[2] == "bytes")


def _are_there(table: pq.ParquetFile, column: str) -> Iterator[bool]:
    for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=[column]):
        pictures = batch.column(0)
        while pa.types.is_struct(pictures.type):
            pictures = pc.struct_field(pictures, "bytes")
        yield pictures.null_count < len(pictures)
