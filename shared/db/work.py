"""What a worker must know to run an attempt: the job's facts, its files, where to go on from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.artifact_rows import stored_artifacts
from shared.db.checkpoints import usable
from shared.db.models import Artifact, Attempt, File, Job
from shared.domain.activations import StoredFile, is_shard
from shared.domain.changes import SpecChange
from shared.domain.errors import NotFound
from shared.domain.events import CheckpointManifest
from shared.domain.extraction import ResolvedExtraction
from shared.domain.freeze import FreezePlan
from shared.domain.job import LIVE_ATTEMPT_STATES
from shared.domain.job_kind import JobKind
from shared.domain.resolved import JobWeights, ResolvedJob
from shared.domain.stored_plan import freeze_plan_in

MODEL_ARTIFACT = "model.safetensors"


@dataclass(frozen=True)
class InputFile:
    """An uploaded file. `details` is what its check found: class names, samples, columns."""

    id: str
    filename: str
    storage_key: str
    sha256: str
    bytes: int
    format: str
    details: dict[str, Any]


@dataclass(frozen=True)
class BaseWeights:
    """The weights that another job made."""

    job_id: str
    storage_key: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint of this job. `epoch` counts the epochs done; `manifest` is None where none can be read."""

    id: str
    epoch: int
    step: int
    storage_prefix: str
    manifest: CheckpointManifest | None


@dataclass(frozen=True)
class Work:
    """One attempt's work. `training` is the data set, of an extraction too, which has no freeze plan.

    `checkpoints`: the newest first, the others for when it cannot be read. `shards` are those of an
    extraction that earlier tries have stored. `spent_s`: for how long the trainers of earlier tries have run.
    """

    job_id: str
    team_id: str
    attempt_id: str
    attempt_number: int
    nodes: int
    devices_per_node: int
    accelerator: str
    resolved: ResolvedJob | ResolvedExtraction
    freeze_plan: FreezePlan | None
    training: InputFile
    validation: InputFile | None
    weights: InputFile | None
    base_model: BaseWeights | None
    checkpoints: tuple[ResumePoint, ...]
    shards: tuple[StoredFile, ...] = ()
    changes: tuple[SpecChange, ...] = ()
    spent_s: float = 0.0

    @property
    def resume_from(self) -> ResumePoint | None:
        """The newest checkpoint, None on a first start."""
        return self.checkpoints[0] if self.checkpoints else None


def load_work(session: Session, token: UUID) -> Work:
    """The work of a live attempt. Raises NotFound when the token is lost, or when an input is gone."""
    row = session.execute(
        select(Job, Attempt)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Attempt.lease_token == token, Attempt.state.in_(LIVE_ATTEMPT_STATES))
    ).one_or_none()
    if row is None:
        raise NotFound("the attempt of this token is over", code="token_lost")
    job, attempt = row
    is_extraction = job.kind is JobKind.FEATURE_EXTRACTION
    resolved = (ResolvedExtraction if is_extraction else ResolvedJob).model_validate(job.resolved)
    return Work(
        job_id=job.id,
        team_id=job.team_id,
        attempt_id=attempt.id,
        attempt_number=attempt.number,
        nodes=job.nodes,
        devices_per_node=job.devices_per_node,
        accelerator=job.accelerator,
        resolved=resolved,
        freeze_plan=freeze_plan_in(job.freeze_plan) if job.freeze_plan is not None else None,
        training=_file(session, job.training_file_id),
        validation=_file(session, job.validation_file_id) if job.validation_file_id else None,
        weights=_file(session, job.weights_file_id) if job.weights_file_id else None,
        base_model=_base_model(session, resolved),
        checkpoints=_checkpoints(session, job.id),
        shards=_shards(session, job.id) if is_extraction else (),
        changes=tuple(SpecChange.model_validate(change) for change in job.changes),
        spent_s=_spent_s(session, attempt),
    )


def _spent_s(session: Session, attempt: Attempt) -> float:
    earlier = select(func.coalesce(func.sum(Attempt.ran_s), 0.0)).where(
        Attempt.job_id == attempt.job_id, Attempt.number < attempt.number
    )
    return session.scalars(earlier).one()


def _file(session: Session, file_id: str) -> InputFile:
    file = session.get(File, file_id)
    if file is None:
        raise NotFound(f"the file {file_id} that the job needs is gone")
    return InputFile(
        id=file.id,
        filename=file.filename,
        storage_key=file.storage_key,
        sha256=file.sha256,
        bytes=file.bytes,
        format=file.format,
        details=file.details,
    )


def _base_model(session: Session, resolved: ResolvedJob | ResolvedExtraction) -> BaseWeights | None:
    if not isinstance(resolved.weights, JobWeights):
        return None
    job_id = resolved.weights.job_id
    artifact = session.get(Artifact, (job_id, MODEL_ARTIFACT))
    if artifact is None:
        raise NotFound(f"the job {job_id} that this one goes on from has no {MODEL_ARTIFACT}")
    return BaseWeights(job_id, artifact.storage_key, artifact.sha256, artifact.bytes)


def _shards(session: Session, job_id: str) -> tuple[StoredFile, ...]:
    stored = (found for found in stored_artifacts(session, job_id) if is_shard(found.name))
    return tuple(StoredFile(name=one.name, bytes=one.bytes, sha256=one.sha256) for one in stored)


def _checkpoints(session: Session, job_id: str) -> tuple[ResumePoint, ...]:
    rows = session.scalars(usable(job_id))
    return tuple(
        ResumePoint(
            id=row.id,
            epoch=row.epoch,
            step=row.step,
            storage_prefix=row.storage_prefix,
            manifest=_manifest(row.manifest),
        )
        for row in rows
    )


def _manifest(stored: dict[str, Any]) -> CheckpointManifest | None:
    try:
        return CheckpointManifest.model_validate(stored)
    except ValidationError:
        return None
