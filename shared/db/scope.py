"""Whose rows a query may see: the one place where a team's boundary is drawn.

What a team owns is read through a `Scope`; another team's object cannot be told from a missing one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from shared.db.models import Artifact, Attempt, Checkpoint, Event, File, Job, Metric
from shared.domain.errors import NotFound

Owned = TypeVar("Owned", Job, File)
OfJob = TypeVar("OfJob", Event, Metric, Checkpoint, Artifact, Attempt)

_NOUNS: dict[type[object], str] = {Job: "fine-tuning job", File: "file"}


@dataclass(frozen=True)
class Scope:
    """A session that sees one team's rows only."""

    session: Session
    team_id: str

    def select(self, entity: type[Owned]) -> Select[Owned]:
        """The team's jobs, or the team's files that were not deleted."""
        query = select(entity).where(entity.team_id == self.team_id)
        return query.where(File.deleted_at.is_(None)) if entity is File else query

    def select_of_job(self, entity: type[OfJob], job_id: str) -> Select[OfJob]:
        """What belongs to one of the team's jobs; nothing where the job is not the team's."""
        owned = select(Job.id).where(Job.id == storable(job_id), Job.team_id == self.team_id)
        return select(entity).where(entity.job_id.in_(owned))

    def get(self, entity: type[Owned], id: str, *, lock: bool = False, share: bool = False) -> Owned:
        """The team's object. Raises NotFound.

        `lock` keeps it as it is until the transaction ends; so does `share`, which several may hold at once.
        """
        query = self.select(entity).where(entity.id == storable(id))
        if lock or share:
            query = query.with_for_update(read=share).execution_options(populate_existing=True)
        found = self.session.scalars(query).one_or_none()
        if found is None:
            raise NotFound(f"no {_NOUNS[entity]} {id!r}")
        return found


def storable(text: str) -> str:
    """The text as Postgres can compare it. It holds no NUL, so a text with one equals no stored text."""
    return text if "\0" not in text else ""
