"""Uploaded files: rows of those that were checked and stored."""

from __future__ import annotations

from sqlalchemy import or_

from shared.db.clock import now
from shared.db.models import File, Job
from shared.db.paging import Order, Page, by_creation, read_page
from shared.db.scope import Scope
from shared.domain.errors import Conflict
from shared.domain.job import FINAL_JOB_STATES


def list_files(
    scope: Scope, *, after: str | None, limit: int, order: Order, purpose: str | None
) -> Page[File]:
    """The team's files by age. Raises NotFound on an unknown `after`."""
    last = scope.get(File, after) if after is not None else None
    query = scope.select(File)
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    return read_page(scope.session, by_creation(query, File, last, order), limit)


def delete_file(scope: Scope, file_id: str) -> File:
    """Mark the file as deleted; its bytes may go once this is committed.

    Raises Conflict while an unfinished job uses it.
    """
    file = scope.get(File, file_id, lock=True)
    user = scope.session.scalar(
        scope.of_kind(None)
        .select(Job)
        .with_only_columns(Job.id)
        .where(
            or_(
                Job.training_file_id == file.id,
                Job.validation_file_id == file.id,
                Job.weights_file_id == file.id,
            ),
            Job.state.not_in(FINAL_JOB_STATES),
        )
        .limit(1)
    )
    if user is not None:
        raise Conflict(
            f"file {file.id} is used by job {user}, which has not finished; cancel that job or wait for it",
            code="file_in_use",
        )
    file.deleted_at = now(scope.session)
    return file


def is_stored(scope: Scope, storage_key: str) -> bool:
    """Whether a row for these bytes was committed: answers an ambiguous commit."""
    return scope.session.scalar(scope.select(File).where(File.storage_key == storage_key)) is not None
