"""Results as a trainer leaves them, made of a few bytes: a base, what was trained on it, and the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

BASE = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "old.weight": np.ones(4, np.float32)}


@dataclass(frozen=True)
class Result:
    """The files of one job, and the base's."""

    job_id: str
    base: bytes
    files: Mapping[str, bytes]

    @property
    def model(self) -> bytes:
        return self.files["model.safetensors"]

    def write(self, folder: Path) -> Path:
        """model.json and trainable.safetensors, as `thaw download --full` fetches them."""
        folder.mkdir(parents=True)
        for name in ("model.json", "trainable.safetensors"):
            (folder / name).write_bytes(self.files[name])
        return folder


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def a_result(
    job_id: str = "ftjob-1",
    weights: Mapping[str, Any] | None = None,
    trained: float = 0.5,
    header: bytes | None = None,
    **changes: Any,
) -> Result:
    """A job that kept one tensor of its base and trained another.

    `changes` go into model.json's `base`; `header` is told in place of the model's own.
    """
    base = save(BASE)
    head = {"fc.weight": np.full(3, trained, np.float32)}
    model = save({"conv.weight": BASE["conv.weight"], **head}, metadata={"format": "pt"})
    told = {
        "weights": dict(weights or {"kind": "job", "job_id": "ftjob-base"}),
        "architecture": {},
        "seed": 0,
        "format": "safetensors",
        "sha256": sha256(base),
        "state_sha256": state_sha256(),
        "n_tensors": 1,
        **changes,
    }
    metadata = {
        "base_sha256": told["sha256"],
        "base_state_sha256": told["state_sha256"],
        "base_names": "{}",
        "model_sha256": sha256(model),
        "model_header": (header or header_of(model)).decode(),
    }
    trainable = save(head, metadata=metadata)
    card = {
        "job_id": job_id,
        "weights_file": "model.safetensors",
        "weights_sha256": sha256(model),
        "trainable": {"file": "trainable.safetensors", "sha256": sha256(trainable), "n_tensors": 1},
        "base": told,
        "versions": {},
        "preprocessing": {},
    }
    files = {
        "model.json": json.dumps(card).encode(),
        "model.safetensors": model,
        "trainable.safetensors": trainable,
    }
    return Result(job_id, base, files)


def header_of(file: bytes) -> bytes:
    return file[8 : 8 + int.from_bytes(file[:8], "little")]


def state_sha256() -> str:
    """Of the kept tensor, as the trainer hashes the frozen part."""
    tensor = BASE["conv.weight"]
    one = hashlib.sha256(f"torch.float32 {tensor.shape} ".encode() + tensor.tobytes()).digest()
    return sha256(b"conv.weight\0" + one)
