"""The tables. A state column holds exactly the states of `shared/domain/job.py`, by a constraint."""

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
    Text,
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
    NodeState,
    Outcome,
    SlotState,
    StopReason,
)
from shared.domain.job_kind import JobKind


class Team(Base):
    __tablename__ = "teams"
    __table_args__ = (
        Index("uq_teams_name", "name", unique=True, postgresql_where=text("deleted_at is null")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    deleted_at: Mapped[datetime | None] = mapped_column(
        doc="its row stays for what it owned, and its name may be taken again"
    )


class TeamLimit(Base):
    """What one team's jobs may ask for, and its weight among those that borrow. Null limits nothing.

    A team without a row has no limits, and the weight 1.
    """

    __tablename__ = "team_limits"
    __table_args__ = (CheckConstraint("weight > 0", name="weight"),)

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    weight: Mapped[float] = mapped_column(server_default="1")
    max_queued_jobs: Mapped[int | None] = mapped_column(doc="that wait, for slots or for another job's model")
    max_storage_bytes: Mapped[int | None] = mapped_column(BigInteger, doc="of files and results")
    max_duration_s: Mapped[int | None] = mapped_column(doc="of one job's running, over all its tries")
    max_devices: Mapped[int | None] = mapped_column(doc="of one job, over all its nodes")
    accelerators: Mapped[list[str] | None] = mapped_column(ARRAY(Text), doc="the only types it may run on")


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
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    key_id: Mapped[str | None] = mapped_column(
        doc="whose key came, good or not; null: none, or an unknown one"
    )
    key_name: Mapped[str | None]
    role: Mapped[str | None]
    team_id: Mapped[str | None]
    team_name: Mapped[str | None]
    method: Mapped[str]
    route: Mapped[str]
    target: Mapped[str | None] = mapped_column(doc="what the path names, else what was made")
    client: Mapped[str | None] = mapped_column(doc="the address that the request came from")
    status: Mapped[int]
    request_id: Mapped[str]


class File(Base):
    """An uploaded file, already checked: a file that is no data set is never stored."""

    __tablename__ = "files"
    __table_args__ = (
        CheckConstraint("bytes >= 0", name="bytes"),
        Index("ix_files_team_id_created_at", "team_id", "created_at", "id"),
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


class RegisteredModel(Base):
    """A model that some node has installed, described by that node."""

    __tablename__ = "registered_models"

    name: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(primary_key=True, doc="sha256 of the sources")
    version: Mapped[str]
    description: Mapped[dict[str, Any]] = mapped_column(
        doc="tree, head, image size; or the error of building it"
    )
    described_at: Mapped[datetime] = mapped_column(server_default=NOW)


class NodeRow(Base):
    """A host with slots. `incarnation` is new with each start of its worker."""

    __tablename__ = "nodes"
    __table_args__ = (CheckConstraint("(drained_at is null) = (drained_by is null)", name="drained"),)

    id: Mapped[str] = mapped_column(primary_key=True, doc="the node's name, as the operator gave it")
    incarnation: Mapped[UUID]
    home: Mapped[UUID | None] = mapped_column(doc="of its work folder, where its dead leave their traces")
    queue: Mapped[str] = mapped_column(doc="the Celery queue that this node alone consumes")
    advertise_host: Mapped[str]
    port_base: Mapped[int]
    accelerator: Mapped[str] = mapped_column(doc="cpu, or the device's name")
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger, doc="of one device")
    models: Mapped[list[list[str]]] = mapped_column(JSONB, doc="[name, hash] of the registered models here")
    state: Mapped[NodeState]
    suspect_until: Mapped[datetime | None] = mapped_column(doc="no sooner is it ready again")
    drained_by: Mapped[str | None] = mapped_column(doc="who took it away, as the actor of an event")
    drained_at: Mapped[datetime | None] = mapped_column(doc="no worker undoes it, only who undrains it")
    registered_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_seen_at: Mapped[datetime] = mapped_column(server_default=NOW)


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
        Index("ix_jobs_waiting", "id", postgresql_where=text("state = 'validating_files'")),
        Index("ix_jobs_base_job_id", "base_job_id", postgresql_where=text("base_job_id is not null")),
        # Whether a file may be deleted: does an unfinished job use it?
        Index("ix_jobs_training_file_id", "training_file_id"),
        Index(
            "ix_jobs_validation_file_id",
            "validation_file_id",
            postgresql_where=text("validation_file_id is not null"),
        ),
        Index(
            "ix_jobs_weights_file_id", "weights_file_id", postgresql_where=text("weights_file_id is not null")
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


class Slot(Base):
    """A GPU, or one CPU process, of a node."""

    __tablename__ = "slots"
    __table_args__ = (CheckConstraint("(state = 'held') = (allocation_id is not null)", name="holder"),)

    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[SlotState]
    allocation_id: Mapped[str | None] = mapped_column(ForeignKey("allocations.id"), index=True)


class Event(Base):
    """What happened to a job, written in the transaction that did it. `seq` has no gaps within a job."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(doc="state, checkpoint, note, metrics")
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
