"""The files of a stored checkpoint, by the names that its manifest gives them."""

from __future__ import annotations

from dataclasses import dataclass

from shared.artifacts import ArtifactStore
from shared.db.listed_checkpoints import ListedCheckpoint
from shared.domain.errors import NotFound
from shared.domain.events import MANIFEST_FILE


@dataclass(frozen=True)
class FoundFile:
    """Where a file lies in the store, and its size."""

    key: str
    bytes: int


def find_file(listed: ListedCheckpoint, name: str, store: ArtifactStore) -> FoundFile:
    """A file of the checkpoint, or its manifest. Raises NotFound with the names that there are."""
    row = listed.row
    sizes = {entry["name"]: entry["bytes"] for entry in row.manifest.get("files", [])}
    key = f"{row.storage_prefix}/{name}"
    if name == MANIFEST_FILE:
        return FoundFile(key, store.head(key))
    if name not in sizes:
        known = ", ".join([*sizes, MANIFEST_FILE])
        raise NotFound(f"the checkpoint {row.id} has no file {name!r}; it has: {known}")
    return FoundFile(key, sizes[name])
