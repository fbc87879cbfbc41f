"""What the modules of torchvision's models put out; `worker.training.describe outputs` writes the files."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

from shared.domain.module_outputs import Outputs

FOLDER = Path(__file__).parent / "module_outputs"
SUFFIX = ".json.gz"


@cache
def outputs_of(name: str) -> Outputs | None:
    """Of the model called `name`; None where that was not recorded."""
    path = FOLDER / f"{name}{SUFFIX}"
    return read_outputs(path) if path.is_file() else None


def read_outputs(path: Path) -> Outputs:
    return Outputs.from_data(json.loads(gzip.decompress(path.read_bytes())))


def write_outputs(name: str, outputs: Outputs, folder: Path) -> None:
    """Writes the model's file: the same bytes for the same outputs."""
    text = json.dumps(outputs.to_data(), separators=(",", ":"))
    (folder / f"{name}{SUFFIX}").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
