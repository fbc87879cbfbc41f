"""The layout of a safetensors file: which tensor lies where. Read without the library, which is an extra."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from thaw.errors import UsageError

LENGTH_BYTES = 8
# As many as the library reads.
_MAX_HEADER_BYTES = 100_000_000
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A tensor: its type and shape, and its first and behind its last byte, counted from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What stands before the tensors."""

    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]

    @classmethod
    def parse(cls, text: str | bytes) -> Header:
        """Raises ValueError, KeyError and TypeError for what is no header."""
        raw = json.loads(text)
        metadata = raw.pop("__metadata__", {})
        return cls(metadata, {name: _entry(told) for name, told in raw.items()})


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file on this machine."""

    path: Path
    header: Header
    data_begin: int

    @classmethod
    def read(cls, path: Path) -> TensorFile:
        """Raises UsageError for what is no whole safetensors file."""
        try:
            with path.open("rb") as file:
                length = int.from_bytes(_exactly(file, LENGTH_BYTES), "little")
                if length > _MAX_HEADER_BYTES:
                    raise ValueError(f"its header claims {length:,} bytes")
                header = Header.parse(_exactly(file, length))
                size = file.seek(0, 2) - LENGTH_BYTES - length
            if any(not 0 <= entry.begin <= entry.end <= size for entry in header.entries.values()):
                raise ValueError("it ends before its tensors do")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is no whole safetensors file: {error}") from error
        return cls(path, header, LENGTH_BYTES + length)

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of one tensor, in pieces that fit in memory."""
        entry = self.header.entries[name]
        left = entry.end - entry.begin
        with self.path.open("rb") as file:
            file.seek(self.data_begin + entry.begin)
            while left:
                piece = _exactly(file, min(left, _CHUNK))
                left -= len(piece)
                yield piece


def _entry(told: Mapping[str, object]) -> Entry:
    match told:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            return Entry(dtype, tuple(shape), begin, end)
    raise ValueError("a tensor lacks dtype, shape or data_offsets")


def _exactly(file: BinaryIO, size: int) -> bytes:
    piece = file.read(size)
    if len(piece) != size:
        raise ValueError("it ends too early")
    return piece
