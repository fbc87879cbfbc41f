"""Rows of what a run has left in the store: written at its end, or while it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.fence import lock_writer
from shared.db.models import Artifact, Attempt


@dataclass(frozen=True)
class StoredArtifact:
    """A file of the result that stands in the store already."""

    name: str
    storage_key: str
    bytes: int
    sha256: str


def store_artifacts(session: Session, attempt: Attempt, artifacts: Sequence[StoredArtifact]) -> None:
    """A later attempt's file takes the place of an earlier one's of the same name."""
    for artifact in artifacts:
        values = {
            "attempt_id": attempt.id,
            "storage_key": artifact.storage_key,
            "bytes": artifact.bytes,
            "sha256": artifact.sha256,
        }
        session.execute(
            upsert(Artifact)
            .values(job_id=attempt.job_id, name=artifact.name, **values)
            .on_conflict_do_update(index_elements=["job_id", "name"], set_=values)
        )


def add_artifact(session: Session, *, token: UUID, artifact: StoredArtifact) -> bool:
    """Store a file of a result that is still being made. False: token lost, nothing written.

    What led to it is kept: no later try makes it again.
    """
    found = lock_writer(session, token)
    if found is None:
        return False
    store_artifacts(session, found[1], [artifact])
    found[1].kept_until = func.clock_timestamp()
    return True


def stored_artifacts(session: Session, job_id: str) -> list[StoredArtifact]:
    """What the job's tries have left so far, by name."""
    rows = session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name))
    return [StoredArtifact(row.name, row.storage_key, row.bytes, row.sha256) for row in rows]
