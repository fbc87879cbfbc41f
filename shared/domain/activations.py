"""Saved activations as files: their names, and what index.json says of them.

    activations/shard-00000.safetensors   per module a tensor [n, ...], and "sample_index" int64 [n]
    activations/part-00000.parquet        the same as vectors: a column a module, beside those of RESERVED
    activations/samples.jsonl             a SampleLine for each sample, in the order of the shards
    activations/index.json                ActivationIndex, written last: without it the others are not whole

Which sample lies where depends on the data set, the modules and the batch that one rank takes, and not on how
many ranks there were.
"""

from __future__ import annotations

import re
from math import prod
from typing import Literal

from pydantic import Field

from shared.domain.shape import Shape

FOLDER = "activations"
INDEX_FILE = "index.json"
SAMPLES_FILE = "samples.jsonl"
SAMPLE_INDEX = "sample_index"
# Names beside those of modules in a shard; no module that is called so can be saved.
RESERVED = (SAMPLE_INDEX, "sample", "label")

Output = Literal["safetensors", "parquet"]
Pool = Literal["none", "mean"]
Dtype = Literal["float32", "float16"]

_SHARD = re.compile(rf"{FOLDER}/(?:shard-\d{{5}}\.safetensors|part-\d{{5}}\.parquet)\Z")
_TOLD_OF_ALL = frozenset({f"{FOLDER}/{INDEX_FILE}", f"{FOLDER}/{SAMPLES_FILE}"})


def shard_name(output: Output, number: int) -> str:
    """The shard's name within the folder."""
    return f"shard-{number:05d}.safetensors" if output == "safetensors" else f"part-{number:05d}.parquet"


def is_shard(name: str) -> bool:
    """Whether an artifact of this name is a shard of activations."""
    return _SHARD.match(name) is not None


def is_activation_file(name: str) -> bool:
    """Whether a run may leave a file of this name as part of its activations."""
    return is_shard(name) or name in _TOLD_OF_ALL


class ActivationsWanted(Shape):
    """Which modules' outputs are saved, and how."""

    modules: list[str] = Field(description="module paths, in the network's order")
    output: Output = "safetensors"
    pool: Pool = "none"
    dtype: Dtype = "float32"
    max_bytes: int = Field(description="more than this is not written")


class StoredFile(Shape):
    """A whole file. `name` is relative to the run's folder."""

    name: str
    bytes: int
    sha256: str


class ModuleActivations(Shape):
    """What is saved of one module, for each sample."""

    class_name: str
    output_shape: list[int] = Field(description="as the module put it out, without the batch")
    shape: list[int] = Field(description="as it is saved")
    dtype: Dtype
    mean_over: list[int] = Field(
        description="dimensions of output_shape, counted from 0, that only their mean is left of"
    )

    @property
    def bytes_per_sample(self) -> int:
        return prod(self.shape) * {"float32": 4, "float16": 2}[self.dtype]


class SavedActivations(Shape):
    """Of a run's result: what it saved, and in which files."""

    modules: dict[str, ModuleActivations]
    n_samples: int
    n_bytes: int = Field(description="of all files")
    files: list[StoredFile]


class ShardEntry(Shape):
    """A shard: samples in their order, `first` and `last` by their index in the data set."""

    file: str = Field(description="relative to index.json")
    n_samples: int
    first_sample_index: int
    last_sample_index: int
    bytes: int
    sha256: str


class SampleLine(Shape):
    """Where a sample's activations are. Pictures that cannot be read keep their index and have no line."""

    sample_index: int = Field(description="place in the data set, counted from 0")
    sample: str = Field(description="path of the picture, or the file and its row")
    label: str | list[str] | None = Field(description="name of its class, or of each, where it has any")
    shard: str
    row: int


class ActivationIndex(Shape):
    """index.json."""

    output: Output
    pool: Pool
    n_samples: int
    modules: dict[str, ModuleActivations]
    shards: list[ShardEntry]
    samples: StoredFile
    network: str
    network_sha256: str = Field(description="over the names and bytes of its parameters and buffers")
