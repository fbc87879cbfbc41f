"""Feature extractions for tests: specs, runs, and reading what they left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from scans import CLASSES
from torch import Tensor
from trainer_runs import Ran

from shared.domain.activations import ActivationIndex
from shared.domain.extraction import ExtractionResult, ExtractorSpec
from worker.training.explaining import report_error
from worker.training.extraction import extract
from worker.training.ranks import joined_ranks

RESNET = {"source": "torchvision", "name": "resnet18", "num_classes": 10, "head": ["fc"]}
CUSTOM = {"source": "registered", "name": "custom_network", "num_classes": 10, "head": ["fc"]}
ROOM = 10**9


def extractor_spec(
    data: Path,
    modules: Sequence[str],
    *,
    network: dict[str, Any] = CUSTOM,
    size: tuple[int, int] = (14, 14),
    max_bytes: int = ROOM,
    wanted: dict[str, Any] | None = None,
    **fields: Any,
) -> ExtractorSpec:
    return ExtractorSpec.model_validate(
        {
            "job_id": "fxjob-test",
            "attempt_id": "attempt-test",
            "attempt": 1,
            "network": network,
            "weights": None,
            "data": {"path": str(data), "format": "image_folder"},
            "task": "classification",
            "class_names": CLASSES,
            "wanted": {"modules": list(modules), "max_bytes": max_bytes, **(wanted or {})},
            "batch_size": 8,
            "preprocessing": {
                "height": size[0],
                "width": size[1],
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
                "augment": "none",
                "max_unreadable_fraction": 0.01,
            },
            "device": "cpu",
            "world_size": 1,
            "seed": 7,
            **fields,
        }
    )


@dataclass
class Extracted(Ran):
    """An extraction's folder, read."""

    @property
    def answer(self) -> ExtractionResult:
        return ExtractionResult.model_validate_json((self.out / "result.json").read_bytes())

    @property
    def index(self) -> ActivationIndex:
        return ActivationIndex.model_validate_json((self.out / "activations/index.json").read_bytes())

    @property
    def samples(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "activations/samples.jsonl").open()]

    @property
    def files(self) -> dict[str, bytes]:
        """Every file of the activations, by name."""
        return {path.name: path.read_bytes() for path in (self.out / "activations").iterdir()}

    def rows(self, module: str) -> Tensor:
        """All shards' rows of one module, in order."""
        shards = [load_file(self.out / "activations" / shard.file) for shard in self.index.shards]
        return torch.cat([shard[module] for shard in shards])


def extract_here(spec: ExtractorSpec, out: Path) -> Extracted:
    """Extracts in this process, as one rank."""
    out.mkdir(exist_ok=True)
    try:
        with joined_ranks(spec.device, spec.world_size) as ranks:
            extract(spec, out, ranks)
    except Exception as error:
        report_error(error, 0, "that batch size", out)
    errors = [json.loads(path.read_text()) for path in sorted(out.glob("error-rank*.json"))]
    return Extracted(out, 1 if errors else 0, "", errors)
