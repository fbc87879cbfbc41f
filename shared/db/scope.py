"""Whose rows a query may see: the one place where the boundaries of teams and of kinds of jobs are drawn.

What a team owns is read through a `Scope`; another team's object, or a job of another kind, cannot be told
from a missing one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from shared.db.models import Artifact, Attempt, Checkpoint, Event, File, Job, Metric
from shared.db.storable import comparable
from shared.domain.errors import NotFound
from shared.domain.job_kind import JobKind

Owned = TypeVar("Owned", Job, File)
OfJob = TypeVar("OfJob", Event, Metric, Checkpoint, Artifact, Attempt)


@dataclass(frozen=True)
class Scope:
    """A session that sees one team's rows only, and of its jobs those of one kind (None: of every kind)."""

    session: Session
    team_id: str
    kind: JobKind | None = JobKind.FINE_TUNING

    def of_kind(self, kind: JobKind | None) -> Scope:
        """The same team's jobs of another kind, or of every kind."""
        return replace(self, kind=kind)

    def of_owner(self, job_id: str) -> Scope:
        """The scope of the team whose job this is, for admins alone; this one if there is no such job."""
        owner = self.session.scalar(select(Job.team_id).where(Job.id == comparable(job_id)))
        return replace(self, team_id=owner or self.team_id)

    def select(self, entity: type[Owned]) -> Select[Owned]:
        """The team's jobs or files that were not deleted."""
        query = select(entity).where(entity.team_id == self.team_id, entity.deleted_at.is_(None))
        return query if entity is File or self.kind is None else query.where(Job.kind == self.kind)

    def select_of_job(self, entity: type[OfJob], job_id: str) -> Select[OfJob]:
        """What belongs to one of these jobs; nothing where the job is not one of them."""
        owned = self.select(Job).with_only_columns(Job.id).where(Job.id == comparable(job_id))
        return select(entity).where(entity.job_id.in_(owned))

    def get(self, entity: type[Owned], id: str, *, lock: bool = False, share: bool = False) -> Owned:
        """The team's object. Raises NotFound.

        `lock` keeps it as it is until the transaction ends; so does `share`, which several may hold at once.
        """
        query = self.select(entity).where(entity.id == comparable(id))
        if lock or share:
            query = query.with_for_update(read=share).execution_options(populate_existing=True)
        found = self.session.scalars(query).one_or_none()
        if found is None:
            raise NotFound(f"no {self._noun(entity)} {id!r}")
        return found

    def _noun(self, entity: type[Owned]) -> str:
        if entity is File:
            return "file"
        return "job" if self.kind is None else f"{self.kind.noun} job"
