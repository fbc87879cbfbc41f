"""Who there is, what they own and may ask for, and what they did."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.base import NOW, Base


class Team(Base):
    __tablename__ = "teams"
    __table_args__ = (
        CheckConstraint("deleted_at is null or deletion_asked_at is not null", name="deletion"),
        CheckConstraint("erased_at is null or deleted_at is not null", name="erasure"),
        CheckConstraint("(deletion_asked_at is null) = (deletion_asked_by is null)", name="deletion_asked"),
        Index("uq_teams_name", "name", unique=True, postgresql_where=text("deleted_at is null")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    deletion_asked_at: Mapped[datetime | None] = mapped_column(
        doc="its keys have ended, its jobs are being ended; see `shared/db/team_deletion.py`"
    )
    deletion_asked_by: Mapped[str | None] = mapped_column(doc="as the actor of an event")
    deleted_at: Mapped[datetime | None] = mapped_column(
        doc="all it had was ended and deleted; its row stays for usage, and its name may be taken again"
    )
    erased_at: Mapped[datetime | None] = mapped_column(
        doc="when the last of its rows was emptied, see `shared/db/erasing.py`"
    )


class TeamLimit(Base):
    """What one team's jobs may ask for, and its weight among those that borrow. Null limits nothing.

    A team without a row has no limits, and the weight 1.
    """

    __tablename__ = "team_limits"
    __table_args__ = (
        CheckConstraint("weight > 0", name="weight"),
        CheckConstraint("keep_jobs_days > 0 and keep_files_days > 0", name="kept"),
    )

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    weight: Mapped[float] = mapped_column(server_default="1")
    max_queued_jobs: Mapped[int | None] = mapped_column(doc="that wait, for slots or for another job's model")
    max_storage_bytes: Mapped[int | None] = mapped_column(BigInteger, doc="of files and results")
    max_duration_s: Mapped[int | None] = mapped_column(doc="of one job's running, over all its tries")
    max_devices: Mapped[int | None] = mapped_column(doc="of one job, over all its nodes")
    accelerators: Mapped[list[str] | None] = mapped_column(ARRAY(Text), doc="the only types it may run on")
    keep_jobs_days: Mapped[int | None] = mapped_column(doc="after it was over, or its result last needed")
    keep_files_days: Mapped[int | None] = mapped_column(doc="after its upload, or when it was last needed")


class TeamQuota(Base):
    """A team's quota of one accelerator type, in slots: `shared/domain/quota.py` has the meanings."""

    __tablename__ = "team_quotas"
    __table_args__ = (
        CheckConstraint("nominal_quota >= 0", name="nominal_quota"),
        CheckConstraint("borrowing_limit >= 0", name="borrowing_limit"),
        CheckConstraint("lending_limit between 0 and nominal_quota", name="lending_limit"),
    )

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    accelerator: Mapped[str] = mapped_column(primary_key=True, doc="as nodes name it")
    nominal_quota: Mapped[int]
    borrowing_limit: Mapped[int | None] = mapped_column(doc="beyond the nominal quota; null: what is idle")
    lending_limit: Mapped[int | None] = mapped_column(doc="of the nominal quota; null: all that is idle")


class ApiKey(Base):
    """A key is shown once; only its SHA-256 is stored."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint("role in ('admin', 'owner', 'member', 'viewer')", name="role"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), index=True)
    name: Mapped[str]
    role: Mapped[str]
    prefix: Mapped[str] = mapped_column(doc="the first characters of the key, to tell keys apart")
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None] = mapped_column(doc="to the minute, see `api/key_uses.py`")


class AuditEntry(Base):
    """A write request that was answered. It names rather than refers: it outlasts what it tells of."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_team_id_id", "team_id", "id"),
        Index("ix_audit_entries_target_id", "target", "id"),
        Index("ix_audit_entries_at", "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    key_id: Mapped[str] = mapped_column(doc="of a key that is known, good or not")
    key_name: Mapped[str]
    role: Mapped[str]
    team_id: Mapped[str]
    team_name: Mapped[str]
    method: Mapped[str]
    route: Mapped[str]
    target: Mapped[str | None] = mapped_column(doc="what the path names, else what was made")
    client: Mapped[str | None] = mapped_column(doc="the address that the request came from")
    status: Mapped[int]
    request_id: Mapped[str]
