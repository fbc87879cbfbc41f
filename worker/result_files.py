"""Which files of a finished run become artifacts: those of its kind, and activations that its result lists.

The list is the trainer's: names, sizes and hashes are held against what may be and what was stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from shared.db.leases import StoredArtifact
from shared.domain.activations import SavedActivations, StoredFile, is_activation_file, is_shard
from shared.domain.events import (
    METRICS_FILE,
    MODEL_CARD_FILE,
    MODEL_FILE,
    RESULT_FILE,
    TRAINABLE_FILE,
)
from shared.domain.job_kind import JobKind
from worker.run_files import NotAPlainFile

RESULT_FILES: Mapping[JobKind, tuple[str, ...]] = {
    JobKind.FINE_TUNING: (MODEL_FILE, MODEL_CARD_FILE, TRAINABLE_FILE, RESULT_FILE, METRICS_FILE),
    JobKind.FEATURE_EXTRACTION: (RESULT_FILE,),
}
# A shard is its activations, and a header that names its modules.
_HEADER_BYTES = 1024 * 1024


def listed_activations(result: Mapping[str, Any], max_bytes: int) -> list[StoredFile]:
    """The files of activations that a result lists; none where it has no activations.

    Raises NotAPlainFile for names that are none of such files, and for shards of more than `max_bytes`.
    """
    if result.get("activations") is None:
        return []
    try:
        files = SavedActivations.model_validate(result["activations"]).files
    except ValidationError as error:
        raise NotAPlainFile(f"{RESULT_FILE} lists activations that cannot be read: {error}") from error
    for file in files:
        if not is_activation_file(file.name):
            raise NotAPlainFile(f"{RESULT_FILE} lists {file.name!r}, which is no file of activations")
    if len({file.name for file in files}) < len(files):
        raise NotAPlainFile(f"{RESULT_FILE} lists a file of activations twice")
    shards = [file for file in files if is_shard(file.name)]
    n_bytes = sum(file.bytes for file in shards)
    if n_bytes > max_bytes + _HEADER_BYTES * len(shards):
        raise NotAPlainFile(f"{RESULT_FILE} lists {n_bytes:,} bytes of activations; {max_bytes:,} may be")
    return files


def check_as_listed(listed: Iterable[StoredFile], stored: Iterable[StoredArtifact]) -> None:
    """Raises NotAPlainFile where something else was stored than the result lists."""
    found = {artifact.name: (artifact.bytes, artifact.sha256) for artifact in stored}
    for file in listed:
        if found.get(file.name) != (file.bytes, file.sha256):
            raise NotAPlainFile(f"{file.name} is not the file that {RESULT_FILE} lists")
