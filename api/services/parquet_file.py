"""What is in a Parquet file of labelled pictures: its columns and classes, read in constant memory."""

from __future__ import annotations

from collections import Counter
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from api.services.parquet_label_lists import read_label_lists
from api.services.parquet_pictures import check_pictures
from shared.domain.archive import Caps
from shared.domain.errors import Invalid, TooLarge
from shared.domain.labelled_images import wrong_label

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels")
_MAX_CLASSES = 100_000
_BATCH_ROWS = 65_536


def read_labelled_table(file: BinaryIO, caps: Caps) -> dict[str, Any]:
    """The columns that matter, the task that the labels are for, and what was counted of them.

    Raises Invalid and TooLarge, and MemoryError where a part of it unpacks to more than there is.
    """
    try:
        table = pq.ParquetFile(file)
        image, label = _image_column(table.schema_arrow), _label_column(table.schema_arrow)
        _check_amount(table.metadata, caps)
        check_pictures(file, image)
        has_lists = pa.types.is_list(table.schema_arrow.field(label).type)
        found = read_label_lists(file, label) if has_lists else _read_classes(file, label)
    except MemoryError:  # of Arrow's errors the one that says nothing of the file
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _bad(f"this is no readable Parquet file ({_first_line(error)})") from error
    task = "multilabel" if has_lists else "classification"
    return {"task": task, **found, "image_column": image, "label_column": label}


def _image_column(schema: pa.Schema) -> str:
    found = [field.name for field in schema if _holds_pictures(field.type)]
    wanted = "one column of pictures: binary, or a struct with binary 'bytes'; call it 'image'"
    return _chosen(found, _IMAGE_NAMES, schema, wanted)


def _label_column(schema: pa.Schema) -> str:
    found = [field.name for field in schema if _holds_labels(field.type)]
    wanted = "one column of labels: integers, strings, or lists of strings; call it 'label'"
    return _chosen(found, _LABEL_NAMES, schema, wanted)


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
    if pa.types.is_list(type):
        return bool(pa.types.is_string(type.value_type))
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


def _read_classes(file: BinaryIO, label: str) -> dict[str, Any]:
    # As a dictionary, a long label that many rows share is held once.
    counts = _ordered(_count(pq.ParquetFile(file, read_dictionary=[label]), label))
    return {
        "class_names": list(counts),
        "samples_per_class": counts,
        "n_samples": sum(counts.values()),
    }


def _count(table: pq.ParquetFile, label: str) -> Counter[int | str]:
    counts: Counter[int | str] = Counter()
    for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=[label]):
        column = batch.column(0)
        if column.null_count:
            raise _bad(f"column {label!r} has rows without a label; every row needs one")
        for entry in column.value_counts().to_pylist():
            if wrong := wrong_label([str(entry["values"])]):
                raise _bad(f"column {label!r} has {wrong}")
            counts[entry["values"]] += entry["counts"]
        if len(counts) > _MAX_CLASSES:
            raise _bad(
                f"column {label!r} has more than {_MAX_CLASSES:,} different labels: that is no class column"
            )
    return counts


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
