"""How data flows through torchvision's models; `worker.training.describe flows` writes the files."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

from shared.domain.flow import Flow

FOLDER = Path(__file__).parent / "flows"
SUFFIX = ".json.gz"


@cache
def flow_of(name: str) -> Flow:
    """Of the model called `name`, at the size of pictures that its default weights expect."""
    return read_flow(FOLDER / f"{name}{SUFFIX}")


def read_flow(path: Path) -> Flow:
    return Flow.from_data(json.loads(gzip.decompress(path.read_bytes())))


def write_flow(name: str, flow: Flow, folder: Path) -> None:
    """Writes the model's file: the same bytes for the same flow."""
    text = json.dumps(flow.to_data(), separators=(",", ":"))
    (folder / f"{name}{SUFFIX}").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
