"""The artifact store: a local folder or S3 behind one contract. Start at `open_store`."""

from __future__ import annotations

from shared.artifacts.errors import (
    ArtifactCorrupt,
    ArtifactExists,
    ArtifactNotFound,
    BadKey,
    StoreUnavailable,
)
from shared.artifacts.opening import StoreOptions, open_store
from shared.artifacts.store import ArtifactStore, Entry, StoredObject

__all__ = [
    "ArtifactCorrupt",
    "ArtifactExists",
    "ArtifactNotFound",
    "ArtifactStore",
    "BadKey",
    "Entry",
    "StoreOptions",
    "StoreUnavailable",
    "StoredObject",
    "open_store",
]
