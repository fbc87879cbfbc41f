"""Shards of activations on disk: filled row by row, then written whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from shared.domain.activations import FOLDER, SAMPLE_INDEX, ModuleActivations, StoredFile
from worker.training.extraction_plan import Shard
from worker.training.extraction_taps import DTYPES
from worker.training.files import sync_folder

Label = str | list[str] | None


@dataclass(frozen=True)
class Names:
    """What the samples of a shard are called: index in the data set, name, and class where there is one."""

    indices: Sequence[int]
    samples: Sequence[str]
    labels: Sequence[Label]


class OpenShard:
    """A shard that is being filled, in memory."""

    def __init__(self, shard: Shard, layout: Mapping[str, ModuleActivations]) -> None:
        self.shard = shard
        self._rows = {
            path: torch.empty((shard.n_samples, *saved.shape), dtype=DTYPES[saved.dtype])
            for path, saved in layout.items()
        }
        self._n = 0

    @property
    def is_full(self) -> bool:
        return self._n == self.shard.n_samples

    def add(self, rows: Mapping[str, Tensor], n_samples: int) -> None:
        """The next samples' activations, of every module."""
        for path, of_module in rows.items():
            self._rows[path][self._n : self._n + n_samples] = of_module
        self._n += n_samples

    def write(self, out: Path, names: Names) -> StoredFile:
        """Writes the shard below `out`, whole or not at all, and says what the file is."""
        name = f"{FOLDER}/{self.shard.name}"
        aside = out / FOLDER / f".{self.shard.name}.partial"
        if self.shard.output == "parquet":
            _write_parquet(aside, self._rows, names)
        else:
            index = torch.tensor(list(names.indices), dtype=torch.int64)
            save_file({**self._rows, SAMPLE_INDEX: index}, aside)
        stored = describe_file(aside, name)
        aside.replace(out / name)
        sync_folder(out / FOLDER)
        return stored


def describe_file(path: Path, name: str) -> StoredFile:
    """The file's size and hash, once the disk has all of it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return StoredFile(name=name, bytes=path.stat().st_size, sha256=digest)


def _write_parquet(path: Path, rows: Mapping[str, Tensor], names: Names) -> None:
    import pyarrow as pa  # noqa: PLC0415  # heavy, and only jobs that ask for Parquet need it
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns: dict[str, Any] = {
        SAMPLE_INDEX: pa.array(np.asarray(names.indices, dtype=np.int64)),
        "sample": pa.array(list(names.samples), pa.string()),
        "label": pa.array(list(names.labels), _label_type(names.labels)),
    }
    for module, of_module in rows.items():
        flat = pa.array(of_module.reshape(-1).numpy())
        columns[module] = pa.FixedSizeListArray.from_arrays(flat, of_module.shape[1])
    pq.write_table(pa.table(columns), path, use_dictionary=["label"], compression="zstd")


def _label_type(labels: Sequence[Label]) -> Any:
    """The same in every part, whatever samples it holds."""
    import pyarrow as pa  # noqa: PLC0415

    return pa.list_(pa.string()) if isinstance(labels[0], list) else pa.string()
