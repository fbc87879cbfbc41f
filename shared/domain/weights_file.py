"""The header of a safetensors file: which tensors it holds, checked against the file's size."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

from shared.domain.errors import Invalid

_MAX_HEADER_BYTES = 16 * 1024 * 1024
# As many as torch can index; the product of a million sides would take hours.
_MAX_DIMENSIONS = 64
_BITS = {"F4": 4, "F8_E4M3": 8, "F8_E5M2": 8, "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16}
_BITS |= {"BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64}

Shapes = dict[str, list[int]]


def looks_like_safetensors(file: BinaryIO) -> bool:
    """Whether the file starts as a safetensors file does: a length, then a JSON object."""
    file.seek(0)
    start = file.read(9)
    return len(start) == 9 and start[8:] == b"{"


def read_shapes(file: BinaryIO) -> Shapes:
    """The shape of each tensor by its name. Raises Invalid when the header does not describe the file."""
    size = file.seek(0, 2)
    file.seek(0)
    length = struct.unpack("<Q", file.read(8))[0]
    if length > min(_MAX_HEADER_BYTES, size - 8):
        raise _bad(f"its header claims {length:,} bytes")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise _bad(f"its header is no JSON ({error})") from error
    if not isinstance(header, dict):
        raise _bad("its header is no JSON object")
    header.pop("__metadata__", None)
    if not header:
        raise _bad("it holds no tensor")
    tensors = {name: _tensor(name, entry, size - 8 - length) for name, entry in header.items()}
    _check_all_covered(tensors.values(), size - 8 - length)
    return {name: tensor.shape for name, tensor in tensors.items()}


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Its shape, and its first and behind its last byte, counted from the end of the header."""

    shape: list[int]
    begin: int
    end: int


def _tensor(name: str, entry: object, data_bytes: int) -> _Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            is_shape = len(shape) <= _MAX_DIMENSIONS and all(
                type(side) is int and side >= 0 for side in shape
            )
            if dtype not in _BITS or not is_shape:
                raise _bad(f"tensor {name!r} has an unknown type or shape")
            if not 0 <= begin <= end <= data_bytes or (end - begin) * 8 != prod(shape) * _BITS[dtype]:
                raise _bad(f"tensor {name!r} does not lie where the header says, maybe the file was cut off")
            return _Tensor(shape, begin, end)
    raise _bad(f"tensor {name!r} lacks dtype, shape or data_offsets")


def _check_all_covered(tensors: Iterable[_Tensor], data_bytes: int) -> None:
    """Each byte belongs to one tensor: the library that loads the file insists on it."""
    at = 0
    for begin, end in sorted((tensor.begin, tensor.end) for tensor in tensors):
        if begin != at:
            raise _bad(f"its tensors overlap or leave a gap at byte {min(begin, at):,} of the data")
        at = end
    if at != data_bytes:
        raise _bad(f"{data_bytes - at:,} bytes behind the last tensor belong to none")


def _bad(reason: str) -> Invalid:
    return Invalid(
        f"this is no whole safetensors file: {reason}; write it with safetensors.torch.save_file",
        param="file",
        code="bad_weights_file",
    )
