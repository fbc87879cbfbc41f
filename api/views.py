"""From rows to the shapes that leave the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from api.job_fields import common_fields, seconds_by_part
from api.schemas import (
    ArtifactView,
    AttemptView,
    CheckpointFile,
    CheckpointView,
    EventView,
    FileObject,
    JobSummary,
    JobView,
    ListOf,
    MetricView,
    NodeView,
    Plan,
    Seconds,
    ShareView,
    SlotView,
    unix,
    unix_or_none,
)
from shared.db.inventory import Holders, KnownNode
from shared.db.jobs import Try
from shared.db.listed_checkpoints import ListedCheckpoint
from shared.db.models import Allocation, Artifact, Event, File, Job, Metric
from shared.db.paging import Page
from shared.domain.errors import NotFound
from shared.domain.job import JobState
from shared.domain.job_kind import JobKind
from shared.domain.stored_plan import to_show

Row = TypeVar("Row")
Item = TypeVar("Item")


class _HasId(Protocol):
    id: str


Named = TypeVar("Named", bound=_HasId)

# What a list of names a thousand long would hide; the artifact result.json has these too.
_LEFT_OUT_OF_RESULT = frozenset({"freeze_plan", "spec", "job_id"})


def page_of(page: Page[Row], view: Callable[[Row], Item]) -> ListOf[Item]:
    """A page of rows as the API shows it."""
    data = [view(row) for row in page.rows]
    # Artifacts have no id: a name is what their list takes as `after`.
    ids = [str(getattr(item, "id", None) or getattr(item, "name", "")) for item in data]
    return ListOf(
        data=data, has_more=page.has_more, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None
    )


def slice_of(items: Sequence[Named], after: str | None, limit: int) -> ListOf[Named]:
    """A page of a list that is short enough to be made whole. Raises NotFound on an unknown `after`."""
    ids = [item.id for item in items]
    if after is not None and after not in ids:
        raise NotFound(f"{after!r} is not in this list", param="after")
    start = ids.index(after) + 1 if after is not None else 0
    page = Page(list(items[start : start + limit]), has_more=len(items) > start + limit)
    return page_of(page, lambda item: item)


def file_view(file: File) -> FileObject:
    """A file. The shapes of weights are left out: they are long, and the file itself has them."""
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=unix(file.created_at),
        filename=file.filename,
        purpose=file.purpose,
        sha256=file.sha256,
        format=file.format,
        details={name: value for name, value in file.details.items() if name != "tensors"},
    )


def job_summary(job: Job) -> JobSummary:
    """A job as lists show it."""
    return JobSummary(**_job_fields(job))


def job_view(job: Job, attempts: Sequence[Try]) -> JobView:
    """A job with its plan, attempts and result."""
    return JobView(
        **_job_fields(job),
        freeze_plan=plan_view(job),
        attempts=[attempt_view(attempt) for attempt in attempts],
        result={k: v for k, v in job.result.items() if k not in _LEFT_OUT_OF_RESULT} if job.result else None,
    )


def plan_view(job: Job) -> Plan:
    """A job's plan, as it was when the job was submitted."""
    assert job.freeze_plan is not None, "only jobs that train are seen here"
    return Plan(model=job.model, head=resolved_head(job.resolved), **to_show(job.freeze_plan))


def resolved_head(resolved: dict[str, Any]) -> dict[str, Any]:
    """What answers: its modules, how many classes, and whether it is new."""
    target = resolved["target"]
    return {
        "modules": target["head"],
        "num_classes": target["num_classes"],
        "replaced": resolved["replace_head"],
    }


def attempt_view(known: Try) -> AttemptView:
    attempt = known.attempt
    return AttemptView(
        id=attempt.id,
        number=attempt.number,
        state=attempt.state,
        resume_from=attempt.resume_from,
        nodes=[share_view(share) for share in known.shares],
        outcome=attempt.outcome,
        error=attempt.error,
        ran_s=attempt.ran_s,
        created_at=unix(attempt.created_at),
        running_at=unix_or_none(attempt.running_at),
        ended_at=unix_or_none(attempt.ended_at),
    )


def share_view(share: Allocation) -> ShareView:
    return ShareView(
        node=share.node_id,
        node_rank=share.node_rank,
        slots=sorted(share.slots),
        accelerator=share.accelerator,
        state=share.state,
        outcome=share.outcome,
        error=share.error,
    )


def event_view(event: Event) -> EventView:
    kind = JobKind.of(event.job_id)
    return EventView(
        id=f"{kind.id_start[:2]}event-{event.job_id.partition('-')[2]}-{event.seq}",
        object=f"{kind}.job.event",
        seq=event.seq,
        created_at=unix(event.created_at),
        level=event.level,
        type=event.type,
        message=event.message,
        actor=event.actor,
        data=event.data,
    )


def checkpoint_view(listed: ListedCheckpoint) -> CheckpointView:
    checkpoint = listed.row
    files = [CheckpointFile(**entry) for entry in checkpoint.manifest.get("files", [])]
    return CheckpointView(
        id=checkpoint.id,
        created_at=unix(checkpoint.created_at),
        fine_tuning_job_id=checkpoint.job_id,
        fine_tuned_model_checkpoint=f"{checkpoint.job_id}:step-{checkpoint.step}",
        step_number=checkpoint.step,
        epoch=checkpoint.epoch,
        attempt=listed.attempt,
        is_newest=listed.is_newest,
        is_best=listed.is_best,
        is_damaged=checkpoint.damaged_at is not None,
        bytes=sum(file.bytes for file in files),
        files=files,
        metrics={"step": float(checkpoint.step), **checkpoint.manifest.get("metrics", {})},
    )


def artifact_view(artifact: Artifact) -> ArtifactView:
    return ArtifactView(
        object=f"{JobKind.of(artifact.job_id)}.job.artifact",
        name=artifact.name,
        bytes=artifact.bytes,
        sha256=artifact.sha256,
        created_at=unix(artifact.created_at),
    )


def metric_view(metric: Metric) -> MetricView:
    return MetricView(
        id=str(metric.id),
        kind=metric.kind,
        step=metric.step,
        epoch=metric.epoch,
        values=metric.values,
        created_at=unix(metric.created_at),
    )


def node_view(known: KnownNode, holders: Holders) -> NodeView:
    """A node; of its jobs those that `holders` tells of."""
    node = known.node
    return NodeView(
        id=node.id,
        state=node.state,
        accelerator=node.accelerator,
        memory_bytes=node.memory_bytes,
        slots=[
            SlotView(
                index=slot.index,
                state=slot.state,
                unhealthy_reason=slot.unhealthy_reason,
                job_id=holders.get((node.id, slot.index)),
            )
            for slot in known.slots
        ],
        models=sorted(name for name, _ in node.models),
        registered_at=unix(node.registered_at),
        last_seen_at=unix(node.last_seen_at),
        drained_at=unix_or_none(node.drained_at),
    )


def _job_fields(job: Job) -> dict[str, Any]:
    resolved = job.resolved
    queued, starting, training = seconds_by_part(job)
    return {
        **common_fields(job),
        "fine_tuned_model": job.id if job.state is JobState.SUCCEEDED else None,
        "training_file": job.training_file_id,
        "validation_file": job.validation_file_id,
        "hyperparameters": resolved["hyperparameters"],
        "task": resolved["task"],
        "head": resolved_head(resolved),
        "freeze": resolved["freeze"],
        "capture": resolved.get("capture") or None,
        "timings": Seconds(queued=queued, starting=starting, training=training),
    }
