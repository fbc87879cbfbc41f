"""Jobs, the files that they read, and each try to run one."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.base import NOW, Base
from shared.domain.job import (
    AllocationState,
    AttemptState,
    JobState,
    Outcome,
    StopReason,
)
from shared.domain.job_kind import JobKind


class File(Base):
    """An uploaded file, already checked: a file that is no data set is never stored."""

    __tablename__ = "files"
    __table_args__ = (
        CheckConstraint("bytes >= 0", name="bytes"),
        Index("ix_files_team_id_created_at", "team_id", "created_at", "id"),
        # Which are kept no longer?
        Index("ix_files_there", "team_id", "created_at", postgresql_where=text("deleted_at is null")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    storage_key: Mapped[str]
    format: Mapped[str] = mapped_column(doc="image_folder, parquet or weights")
    details: Mapped[dict[str, Any]] = mapped_column(doc="what the check found: class names, samples, columns")
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    deleted_at: Mapped[datetime | None]


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("(state = 'stopping') = (stop_reason is not null)", name="stopping_has_reason"),
        CheckConstraint(
            "(state in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)", name="finished"
        ),
        CheckConstraint("(kind = 'fine_tuning') = (freeze_plan is not null)", name="freeze_plan_of_kind"),
        Index("ix_jobs_team_id_created_at", "team_id", "created_at", "id"),
        Index(
            "ix_jobs_queue",
            text("priority desc"),
            "queued_at",
            "id",
            postgresql_where=text("state = 'queued'"),
        ),
        # Which are kept no longer?
        Index(
            "ix_jobs_team_id_finished_at",
            "team_id",
            "finished_at",
            postgresql_where=text("finished_at is not null and deleted_at is null"),
        ),
        # Which are not over? Of few teams, and few of theirs.
        Index("ix_jobs_unfinished", "team_id", postgresql_where=text("finished_at is null")),
        # Which are still to be emptied, of a team that is gone?
        Index(
            "ix_jobs_deleted",
            "team_id",
            "id",
            postgresql_where=text("deleted_at is not null and erased_at is null"),
        ),
        Index("ix_jobs_waiting", "id", postgresql_where=text("state = 'validating_files'")),
        # Whether a job or a file is needed, and when it last was: by however many.
        Index(
            "ix_jobs_base_job_id",
            "base_job_id",
            "finished_at",
            postgresql_where=text("base_job_id is not null"),
        ),
        Index("ix_jobs_training_file_id", "training_file_id", "finished_at"),
        Index(
            "ix_jobs_validation_file_id",
            "validation_file_id",
            "finished_at",
            postgresql_where=text("validation_file_id is not null"),
        ),
        Index(
            "ix_jobs_weights_file_id",
            "weights_file_id",
            "finished_at",
            postgresql_where=text("weights_file_id is not null"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    created_by: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    kind: Mapped[JobKind] = mapped_column(
        server_default=JobKind.FINE_TUNING.value, default=JobKind.FINE_TUNING
    )
    state: Mapped[JobState]
    stop_reason: Mapped[StopReason | None]
    model: Mapped[str]
    base_job_id: Mapped[str | None] = mapped_column(
        ForeignKey("jobs.id"), doc="the job whose result this one goes on from"
    )
    training_file_id: Mapped[str] = mapped_column(
        ForeignKey("files.id"), doc="the data set that the job reads, whatever it does with it"
    )
    validation_file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"))
    weights_file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"))
    spec: Mapped[dict[str, Any]] = mapped_column(doc="JobSpec or ExtractionSpec, as it was asked for")
    resolved: Mapped[dict[str, Any]] = mapped_column(
        doc="ResolvedJob or ResolvedExtraction: every default decided"
    )
    freeze_plan: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), doc="null where nothing is trained"
    )
    changes: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, server_default=text("'[]'"), doc="what was changed while it was paused, in their order"
    )
    priority: Mapped[int] = mapped_column(server_default="0")
    devices_per_node: Mapped[int]
    nodes: Mapped[int]
    accelerator: Mapped[str]
    memory_bytes: Mapped[int | None] = mapped_column(
        BigInteger, doc="what a GPU must have, by the plan's estimate or as it was asked for; null: not known"
    )
    attempts_used: Mapped[int] = mapped_column(
        server_default="0", doc="attempts that count against max_attempts"
    )
    max_attempts: Mapped[int]
    n_events: Mapped[int] = mapped_column(server_default="0", doc="the sequence number of the last event")
    wait_reason: Mapped[str | None] = mapped_column(doc="why the last scheduling pass did not place it")
    progress: Mapped[dict[str, Any] | None] = mapped_column(
        doc="the last TrainLine, ValidationLine and ExtractionLine, and the phase"
    )
    result: Mapped[dict[str, Any] | None] = mapped_column(doc="result.json")
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    queued_at: Mapped[datetime | None] = mapped_column(doc="its place in the queue")
    preempted_at: Mapped[datetime | None] = mapped_column(doc="when it last handed its slots back")
    dispatched_at: Mapped[datetime | None] = mapped_column(doc="of the first attempt")
    started_at: Mapped[datetime | None] = mapped_column(doc="when the first attempt ran")
    trained_at: Mapped[datetime | None] = mapped_column(
        doc="when its first training step, or its first samples, were seen"
    )
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None] = mapped_column(
        doc="gone for its team; its row stays for jobs that began from it, its files go with the next sweep"
    )
    erased_at: Mapped[datetime | None] = mapped_column(
        doc="when its row was emptied of all but what usage counts, because its team is gone"
    )


class IdempotencyKey(Base):
    """What a team has called a submission, so that sending it again makes no second job."""

    __tablename__ = "idempotency_keys"

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True, doc="the header Idempotency-Key")
    request_sha256: Mapped[str] = mapped_column(doc="of the kind of job and the request as it was understood")
    # Deferred: the key is taken first, so that of two requests at once the second waits before it works.
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", deferrable=True, initially="DEFERRED"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW, index=True)


class Attempt(Base):
    """One try of a job. Whoever holds `lease_token` while the attempt is live may write for the job."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("job_id", "number"),
        CheckConstraint("claimed between 0 and nodes", name="claimed"),
        CheckConstraint("(state = 'ended') = (ended_at is not null)", name="ended"),
        # At most one live attempt a job: the promise "never twice at once", kept by the database.
        Index(
            "uq_attempts_live_job",
            "job_id",
            unique=True,
            postgresql_where=text("state in ('offered', 'running', 'ending')"),
        ),
        Index("ix_attempts_live", "state", postgresql_where=text("state <> 'ended'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    state: Mapped[AttemptState]
    nodes: Mapped[int]
    claimed: Mapped[int] = mapped_column(server_default="0")
    lease_token: Mapped[UUID] = mapped_column(unique=True)
    master_addr: Mapped[str]
    master_port: Mapped[int]
    resume_from: Mapped[str | None] = mapped_column(
        doc="id of the checkpoint it goes on from, once that is fetched"
    )
    ran_s: Mapped[float] = mapped_column(
        server_default="0", doc="how long its trainer has run, as last told; the time it was held is left out"
    )
    kept_until: Mapped[datetime | None] = mapped_column(
        doc="up to when its work is gone on from, see kept_work.py; null: that is not settled"
    )
    outcome: Mapped[Outcome | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    running_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Allocation(Base):
    """One node's share of an attempt."""

    __tablename__ = "allocations"
    __table_args__ = (
        UniqueConstraint("attempt_id", "node_rank"),
        Index(
            "ix_allocations_live",
            "node_id",
            "state",
            postgresql_where=text("state in ('offered', 'claimed')"),
        ),
        Index("ix_allocations_lease", "lease_expires_at", postgresql_where=text("state = 'claimed'")),
        # What was held in a stretch of time. Those that live are left out: they are written all the time.
        Index(
            "ix_allocations_ended_at",
            "ended_at",
            "claimed_at",
            postgresql_where=text("ended_at is not null"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id"))
    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id"))
    node_rank: Mapped[int]
    slots: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    accelerator: Mapped[str] = mapped_column(doc="the node's at that time: it may get another later")
    state: Mapped[AllocationState]
    dispatch_seq: Mapped[int] = mapped_column(server_default="1")
    incarnation: Mapped[UUID | None] = mapped_column(doc="of the worker that claimed it")
    claim_id: Mapped[UUID | None] = mapped_column(doc="of the one handling of one message that claimed it")
    offered_at: Mapped[datetime] = mapped_column(server_default=NOW)
    claimed_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[Outcome | None]
    error: Mapped[dict[str, Any] | None]
