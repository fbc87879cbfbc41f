"""The registered models that this environment offers, as far as they can be known without importing them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

ENTRY_POINTS = "thaw.models"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model by name, by the version of the distribution that offers it, and by the hash of its sources."""

    name: str
    version: str
    hash: str


def registered_models() -> list[RegisteredModel]:
    """All models of the entry-point group `thaw.models`, sorted by name. Imports none of them."""
    found = sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name)
    return [RegisteredModel(entry.name, _version(entry), source_hash(entry.module)) for entry in found]


def source_hash(module: str) -> str:
    """SHA-256, in hexadecimal, over every Python source of the top-level package that holds `module`.

    It depends on the files' names inside the package and on their contents, not on where the package lies.
    """
    digest = hashlib.sha256()
    for name, source in _sources(module.partition(".")[0]):
        content = source.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources(package: str) -> Iterator[tuple[str, Path]]:
    spec = find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(
            f"the package {package!r} of a registered model is not installed", name=package
        )
    if spec.submodule_search_locations is None:
        if spec.origin is None:
            raise ImportError(f"the package {package!r} of a registered model has no source", name=package)
        yield f"{package}.py", Path(spec.origin)
        return
    for folder in sorted(map(Path, spec.submodule_search_locations)):
        for source in sorted(folder.rglob("*.py")):
            yield source.relative_to(folder).as_posix(), source


def _version(entry: EntryPoint) -> str:
    return entry.dist.version if entry.dist else "unknown"
