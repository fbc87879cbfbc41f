"""Activations that a job has saved, read from the folder that `thaw download` wrote. Needs numpy alone.

from thaw.activations import read_activations

found = read_activations(Path("fxjob-123"))
features = found["layer4"]                        # float32 [samples, ...], in the order of `found.samples`
for shard in found.shards():                      # or a shard at a time, where they are too large for memory
    print(shard.sample_index, shard["layer4"].shape)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thaw.errors import UsageError

FOLDER = "activations"
INDEX = "index.json"
SAMPLE_INDEX = "sample_index"
_DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


@dataclass(frozen=True)
class Sample:
    """A picture: its place in the data set, its name, and its class (classes, where it has several)."""

    index: int
    name: str
    label: str | tuple[str, ...] | None


@dataclass(frozen=True)
class Shard:
    """Some samples' activations. An array is read from the disk only where it is looked at."""

    path: Path
    arrays: Mapping[str, NDArray[Any]]

    @property
    def sample_index(self) -> NDArray[np.int64]:
        """The samples' places in the data set."""
        return self.arrays[SAMPLE_INDEX]

    def __getitem__(self, module: str) -> NDArray[Any]:
        """[samples of this shard, ...]"""
        return self.arrays[module]


@dataclass(frozen=True)
class Activations:
    """`folder` holds the shards; `index` is index.json."""

    folder: Path
    index: Mapping[str, Any]

    @property
    def modules(self) -> list[str]:
        """The paths of the modules that were saved."""
        return list(self.index["modules"])

    @cached_property
    def samples(self) -> list[Sample]:
        """Every sample, in the order of the rows."""
        with (self.folder / self.index["samples"]["name"]).open(encoding="utf-8") as lines:
            return [_sample(json.loads(line)) for line in lines]

    def shards(self) -> Iterator[Shard]:
        """One after another. Raises UsageError for one that is damaged or not there."""
        for entry in self.index["shards"]:
            yield _open_shard(self.folder / entry["file"], entry, self.modules)

    def __getitem__(self, module: str) -> NDArray[Any]:
        """All rows of one module, in memory: [samples, ...]."""
        if module not in self.index["modules"]:
            raise KeyError(f"{module!r} was not saved; saved are {', '.join(self.modules)}")
        return np.concatenate([shard[module] for shard in self.shards()])


def read_activations(folder: Path) -> Activations:
    """What a job left in `folder`, or in its `activations`. Raises UsageError where it is not whole."""
    found = folder if (folder / INDEX).is_file() else folder / FOLDER
    try:
        index = json.loads((found / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: there are no whole activations here: {error}") from error
    if index.get("output") != "safetensors":
        raise UsageError(
            f"{found} holds Parquet: read it with pyarrow, pandas or DuckDB, as in pyarrow.parquet.read_table"
        )
    return Activations(found, index)


def _sample(line: Mapping[str, Any]) -> Sample:
    label = line["label"]
    return Sample(line["sample_index"], line["sample"], tuple(label) if isinstance(label, list) else label)


def _open_shard(path: Path, entry: Mapping[str, Any], modules: list[str]) -> Shard:
    try:
        if path.stat().st_size != entry["bytes"]:
            raise ValueError(f"it has {path.stat().st_size} of {entry['bytes']} bytes")
        arrays = _mapped(path)
        return Shard(path, {name: arrays[name] for name in (SAMPLE_INDEX, *modules)})
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is damaged; download it again: {error}") from error


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, on the disk: a length, a JSON header, then the bytes of each."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {name: _array(path, entry, 8 + length) for name, entry in header.items()}


def _array(path: Path, entry: Mapping[str, Any], start: int) -> NDArray[Any]:
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", start + entry["data_offsets"][0], shape)
