"""What is in a Parquet file of labelled pictures: its columns and classes, read in constant memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from shared.domain.datasets import Caps
from shared.domain.errors import Invalid, TooLarge

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels")
_MAX_CLASSES = 100_000
_MAX_LABEL = 1000
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class LabelledTable:
    """The two columns that matter, and the rows of each class in the order of the class names."""

    image_column: str
    label_column: str
    counts: dict[str, int]


def looks_like_parquet(file: BinaryIO) -> bool:
    """Whether the file starts as a Parquet file does."""
    file.seek(0)
    return file.read(4) == b"PAR1"


def read_labelled_table(file: BinaryIO, caps: Caps) -> LabelledTable:
    """Check the columns and count the labels. Raises Invalid and TooLarge."""
    try:
        table = pq.ParquetFile(file)
        image, label = _image_column(table.schema_arrow), _label_column(table.schema_arrow)
        _check_amount(table.metadata, caps)
        # As a dictionary, a long label that many rows share is held once.
        counts = _count(pq.ParquetFile(file, read_dictionary=[label]), label)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _bad(f"this is no readable Parquet file ({_first_line(error)})") from error
    return LabelledTable(image, label, _ordered(counts))


def _image_column(schema: pa.Schema) -> str:
    found = [field.name for field in schema if _holds_pictures(field.type)]
    wanted = "one column of pictures: binary, or a struct with binary 'bytes'; call it 'image'"
    return _chosen(found, _IMAGE_NAMES, schema, wanted)


def _label_column(schema: pa.Schema) -> str:
    found = [field.name for field in schema if _holds_labels(field.type)]
    return _chosen(found, _LABEL_NAMES, schema, "one column of labels: integers or strings; call it 'label'")


def _chosen(found: list[str], names: tuple[str, ...], schema: pa.Schema, wanted: str) -> str:
    """The column of a known name, or the only one that could be meant."""
    named = [name for name in found if name.lower() in names]
    if len(named) == 1:
        return named[0]
    if len(found) == 1:
        return found[0]
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise _bad(f"a Parquet data set needs {wanted}; this file has the columns {columns}")


def _holds_pictures(type: pa.DataType) -> bool:
    if pa.types.is_struct(type):
        return any(field.name == "bytes" and _holds_pictures(field.type) for field in type)
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))


def _holds_labels(type: pa.DataType) -> bool:
    if pa.types.is_dictionary(type):
        return _holds_labels(type.value_type)
    return bool(pa.types.is_integer(type) or pa.types.is_string(type) or pa.types.is_large_string(type))


def _check_amount(metadata: pq.FileMetaData, caps: Caps) -> None:
    if metadata.num_rows == 0:
        raise _bad("this Parquet file has no rows")
    if metadata.num_rows > caps.files:
        raise _too_large(f"the file has {metadata.num_rows:,} rows, at most {caps.files:,} are allowed")
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if unpacked > caps.unpacked_bytes:
        raise _too_large(
            f"the file unpacks to {unpacked:,} bytes, at most {caps.unpacked_bytes:,} are allowed"
        )


def _count(table: pq.ParquetFile, label: str) -> Counter[int | str]:
    counts: Counter[int | str] = Counter()
    for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=[label]):
        column = batch.column(0)
        if column.null_count:
            raise _bad(f"column {label!r} has rows without a label; every row needs one")
        for entry in column.value_counts().to_pylist():
            _check_label(str(entry["values"]), label)
            counts[entry["values"]] += entry["counts"]
        if len(counts) > _MAX_CLASSES:
            raise _bad(
                f"column {label!r} has more than {_MAX_CLASSES:,} different labels: that is no class column"
            )
    return counts


def _check_label(text: str, column: str) -> None:
    if not 0 < len(text) <= _MAX_LABEL or "\0" in text:
        raise _bad(
            f"column {column!r} has the label {text[:40]!r} of {len(text)} characters; "
            f"1 to {_MAX_LABEL} are allowed, without the character NUL"
        )


def _ordered(counts: Counter[int | str]) -> dict[str, int]:
    """Integers by their value, so that class 10 follows 9; strings by their letters."""
    in_order = sorted(counts.items(), key=lambda item: item[0])
    return {str(label): count for label, count in in_order}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _bad(message: str) -> Invalid:
    return Invalid(message, param="file", code="bad_data_file")


def _too_large(message: str) -> TooLarge:
    return TooLarge(message, param="file", code="archive_too_large")
