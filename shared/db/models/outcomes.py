"""What a job tells while it runs, and what it leaves."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.base import NOW, Base


class Event(Base):
    """What happened to a job, written in the transaction that did it. `seq` has no gaps within a job."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(doc="state, phase, checkpoint, metrics, change, note")
    level: Mapped[str] = mapped_column(server_default="info")
    message: Mapped[str]
    actor: Mapped[str] = mapped_column(doc="api:KEY, scheduler, reconciler, or the node's name")
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Metric(Base):
    """A line of the trainer's progress: training averages, or a validation."""

    __tablename__ = "metrics"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id"))
    kind: Mapped[str] = mapped_column(doc="train or validation")
    step: Mapped[int]
    epoch: Mapped[int]
    values: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)

    __table_args__ = (Index("ix_metrics_job_id_id", "job_id", "id"),)


class Checkpoint(Base):
    """A whole checkpoint in the store: its manifest was uploaded last. See `shared/db/checkpoints.py`."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        UniqueConstraint("attempt_id", "step"),
        Index("ix_checkpoints_job_id_step", "job_id", "step"),
        Index("ix_checkpoints_dropped_at", "dropped_at", postgresql_where=text("dropped_at is not null")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id"))
    epoch: Mapped[int]
    step: Mapped[int]
    is_best: Mapped[bool]
    storage_prefix: Mapped[str]
    manifest: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    damaged_at: Mapped[datetime | None] = mapped_column(doc="when it was found that it cannot be used")
    dropped_at: Mapped[datetime | None] = mapped_column(
        doc="when it became superfluous: not shown, not gone on from; a sweep removes its files, then the row"
    )


class Artifact(Base):
    """A file of a job's result."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id"))
    storage_key: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
