"""Lists of labels in a Parquet file, read a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.domain.data_set import MAX_LABEL
from shared.domain.errors import Invalid, TooLarge
from shared.domain.labelled_images import label_details, wrong_label

# Of all rows together: they may all be one row's, and are held at once then.
_MAX_LABELS = 10_000_000
_BATCH_ROWS = 65_536


def read_label_lists(file: BinaryIO, column: str) -> dict[str, Any]:
    """What is counted of a column of lists of strings.

    Raises Invalid, naming the row that is wrong, TooLarge, and Arrow's own errors.
    """
    metadata = pq.ParquetFile(file).metadata
    leaf = next(i for i in range(metadata.num_columns) if _is_below(metadata.schema.column(i).path, column))
    n_labels = sum(metadata.row_group(i).column(leaf).num_values for i in range(metadata.num_row_groups))
    if n_labels > _MAX_LABELS:
        raise TooLarge(
            f"column {column!r} has {n_labels:,} labels, at most {_MAX_LABELS:,} are allowed",
            param="file",
            code="archive_too_large",
        )
    # As a dictionary, a long label that many rows share is held once.
    table = pq.ParquetFile(file, read_dictionary=[metadata.schema.column(leaf).path])
    return label_details(_checked(_rows(table, column), column))


def _is_below(path: str, column: str) -> bool:
    return path.startswith(f"{column}.")


def _rows(table: pq.ParquetFile, column: str) -> Iterator[list[str | None] | None]:
    for lists in _batches(table, column):
        labels = lists.flatten()
        known = _known_labels(labels.dictionary, column)
        flat = (None if place is None else known[place] for place in labels.indices.to_pylist())
        for length in pc.list_value_length(lists).to_pylist():
            yield None if length is None else list(islice(flat, length))


def _batches(table: pq.ParquetFile, column: str) -> Iterator[pa.ListArray]:
    """Never across row groups: each has a dictionary of its own, which Arrow cannot join inside of lists."""
    for group in range(table.num_row_groups):
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=[column]):
            yield batch.column(0)


def _known_labels(dictionary: pa.Array, column: str) -> list[str]:
    """The different labels, none of which is so long that it could fill the memory."""
    longest = pc.max(pc.binary_length(dictionary)).as_py() or 0
    if longest > 4 * MAX_LABEL:
        raise _bad(
            f"column {column!r} has a label of {longest:,} bytes; 1 to {MAX_LABEL} characters are allowed"
        )
    known: list[str] = dictionary.to_pylist()
    return known


def _checked(rows: Iterator[list[str | None] | None], column: str) -> Iterator[list[str]]:
    for row, found in enumerate(rows):
        labels = [label for label in found or () if label is not None]
        if found is None or len(labels) < len(found):
            raise _bad(
                f"column {column!r} has no label in row {row}; a row without labels needs an empty list"
            )
        if wrong := wrong_label(labels):
            raise _bad(f"column {column!r} row {row} has {wrong}")
        yield labels


def _bad(message: str) -> Invalid:
    return Invalid(message, param="file", code="bad_data_file")
