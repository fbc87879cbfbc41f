"""Checkpoints as people see them: those that are kept, the newest first."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Row, Select, tuple_
from sqlalchemy.orm import Session

from shared.db.checkpoints import NEWEST_FIRST, usable
from shared.db.models import Attempt, Checkpoint, Job
from shared.db.paging import Page
from shared.db.scope import Scope
from shared.db.storable import comparable
from shared.domain.errors import NotFound
from shared.domain.retention import best_of


@dataclass(frozen=True)
class ListedCheckpoint:
    """`attempt` is the number of the try that wrote it. `is_newest`: the job would go on from it.

    `is_best`: its epoch is the best so far; one that is damaged is neither.
    """

    row: Checkpoint
    attempt: int
    is_newest: bool
    is_best: bool


def list_checkpoints(scope: Scope, job_id: str, *, after: str | None, limit: int) -> Page[ListedCheckpoint]:
    """The job's checkpoints but those that were dropped. Raises NotFound on an unknown `after`."""
    scope.get(Job, job_id)
    query = _of(scope, job_id).where(Checkpoint.dropped_at.is_(None)).order_by(*NEWEST_FIRST)
    if after is not None:
        last = _find(scope, job_id, after, param="after")
        query = query.where(tuple_(Attempt.number, Checkpoint.step) < (last.number, last.Checkpoint.step))
    found = scope.session.execute(query.limit(limit + 1)).all()
    standing = _Standing.of(scope.session, job_id)
    return Page([standing.of_row(row) for row in found[:limit]], has_more=len(found) > limit)


def one_checkpoint(scope: Scope, job_id: str, checkpoint_id: str) -> ListedCheckpoint:
    """A checkpoint that is kept. Raises NotFound, in words of its own for one that was dropped."""
    scope.get(Job, job_id)
    row = _find(scope, job_id, checkpoint_id)
    if row.Checkpoint.dropped_at is not None:
        raise NotFound(
            f"the checkpoint {checkpoint_id!r} was dropped, as newer ones took its place; "
            "hyperparameters.save_total_limit says how many a job keeps"
        )
    return _Standing.of(scope.session, job_id).of_row(row)


def _of(scope: Scope, job_id: str) -> Select[Checkpoint, int]:
    query = scope.select_of_job(Checkpoint, job_id).join(Attempt, Attempt.id == Checkpoint.attempt_id)
    return query.add_columns(Attempt.number)


def _find(scope: Scope, job_id: str, checkpoint_id: str, param: str | None = None) -> Row[Checkpoint, int]:
    found = scope.session.execute(
        _of(scope, job_id).where(Checkpoint.id == comparable(checkpoint_id))
    ).one_or_none()
    if found is None:
        raise NotFound(f"job {job_id} has no checkpoint {checkpoint_id!r}", param=param)
    return found


@dataclass(frozen=True)
class _Standing:
    newest: str | None
    best: str | None

    @classmethod
    def of(cls, session: Session, job_id: str) -> _Standing:
        newest_first = session.scalars(usable(job_id)).all()
        return cls(newest_first[0].id if newest_first else None, best_of(newest_first))

    def of_row(self, row: Row[Checkpoint, int]) -> ListedCheckpoint:
        checkpoint, attempt = row
        return ListedCheckpoint(checkpoint, attempt, checkpoint.id == self.newest, checkpoint.id == self.best)
