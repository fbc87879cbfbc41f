"""Reads the catalogue's files, each when it is first asked for; `worker.training.describe` writes them."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

from shared.catalog.model import CatalogModel
from shared.domain.errors import Invalid
from shared.domain.near_names import nearest

DATA = Path(__file__).parent / "data"
SUFFIX = ".json.gz"


@cache
def names() -> tuple[str, ...]:
    """The names of all models, sorted."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in DATA.glob(f"*{SUFFIX}")))


@cache
def get(name: str) -> CatalogModel:
    """The model called `name`. Raises `Invalid` with the nearest names where there is none."""
    if name not in names():
        raise Invalid(
            f"{name!r} is no torchvision model; the nearest are {', '.join(near(name))}",
            param="model",
            code="unknown_model",
        )
    return read(DATA / f"{name}{SUFFIX}")


def near(name: str) -> list[str]:
    """The five names most like `name`, best first."""
    return nearest(name, names())


def read(path: Path) -> CatalogModel:
    return CatalogModel.from_data(json.loads(gzip.decompress(path.read_bytes())))


def write(model: CatalogModel, folder: Path) -> None:
    """Writes the model's file: the same bytes for the same model."""
    text = json.dumps(model.to_data(), separators=(",", ":"), sort_keys=True)
    (folder / f"{model.name}{SUFFIX}").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
