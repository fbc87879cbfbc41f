"""A job's log, as far as its worker has stored it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shared.artifacts import ArtifactNotFound, ArtifactStore
from shared.artifacts.keys import artifact_key
from shared.db.jobs import attempts
from shared.db.models import Job
from shared.db.scope import Scope
from shared.domain.events import LOG_FILE


@dataclass(frozen=True)
class LogPart:
    """A log from some byte on, the offset of what will follow, and the number of the try that wrote it."""

    chunks: Iterator[bytes]
    next_offset: int
    attempt: int | None = None


def read_log(scope: Scope, store: ArtifactStore, job_id: str, offset: int) -> LogPart:
    """The log of the newest attempt that has one, from byte `offset` to what is its end now."""
    job = scope.get(Job, job_id)
    for attempt in reversed(attempts(scope, job.id)):
        key = artifact_key(job.team_id, job.id, attempt.id, LOG_FILE)
        try:
            end = store.head(key)
            return LogPart(store.stream(key, min(offset, end), end), max(offset, end), attempt.number)
        except ArtifactNotFound:
            continue
    return LogPart(iter(()), offset)
