"""The shapes that leave the API: OpenAI's, with Thaw's own fields beside them. Times are Unix seconds."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from shared.domain.freeze_plan import PlanPhase
from shared.domain.plan_figures import ArtifactSizes, BatchNorm, CheckpointSize, Fit, Memory, Prefix
from shared.domain.spec import TaskName

Item = TypeVar("Item")


class ListOf(BaseModel, Generic[Item]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class FileObject(BaseModel):
    """An uploaded file. `details`: class names in order, samples per class, columns; of weights, how many."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    sha256: str
    format: str
    details: dict[str, Any]


class Deleted(BaseModel):
    id: str
    object: Literal["file", "fine_tuning.job", "feature_extraction.job"]
    deleted: Literal[True] = True


class JobError(BaseModel):
    """Why a job failed. docs/failures.md lists the codes."""

    code: str
    message: str
    param: str | None = None
    hint: str | None = Field(None, description="what would help")
    traceback: str | None = Field(None, description="the end of the failing rank's own")
    rank: int | None = Field(None, description="the process that failed, where it was one of them")
    node: str | None = Field(None, description="where it failed, where it ran on one")
    attempt: int | None = Field(None, description="the try that failed last, counted from 1")


class ShareView(BaseModel):
    """One node's part of a try: its ranks run on these slots."""

    node: str
    node_rank: int = Field(description="0: its rank 0 writes checkpoints and the result")
    slots: list[int]
    accelerator: str = Field(description="the node's at that time")
    state: str
    outcome: str | None
    error: dict[str, Any] | None


class AttemptView(BaseModel):
    """One try of a job."""

    id: str
    number: int
    state: str
    resume_from: str | None = Field(None, description="the checkpoint that it goes on from")
    nodes: list[ShareView] = Field(description="where it runs or ran, by node rank")
    outcome: str | None
    error: dict[str, Any] | None
    ran_s: float = Field(description="how long its trainer has run; the time it was held is left out")
    created_at: int
    running_at: int | None
    ended_at: int | None


class Seconds(BaseModel):
    """How long a job was queued, starting (to its first step) and training; until now for what goes on."""

    queued: float
    starting: float | None
    training: float | None


class EstimatedStart(BaseModel):
    """When a waiting job may start, in Unix seconds: a guess with its bounds. Null: nobody can say."""

    earliest: int
    likely: int | None
    latest: int | None


class AnyJob(BaseModel):
    """What jobs of every kind show."""

    id: str
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    organization_id: str
    status: str
    phase: str = Field(description="the finer state, such as dispatched or stopping")
    stop_reason: str | None
    wait_reason: str | None
    queue_position: int | None = Field(
        None,
        description="of a job that waits for slots: its place in the whole cluster's queue, counted from 1; "
        "told where one job is asked for, and by /v1/queue",
    )
    estimated_start: EstimatedStart | None = Field(
        None, description="told with `queue_position`; null where no node there is could run it"
    )
    weights: str | None
    seed: int
    user_provided_suffix: str | None
    metadata: dict[str, str] | None
    class_names: list[str]
    preprocessing: dict[str, Any]
    resources: dict[str, Any]
    priority: int
    max_duration_s: int | None
    progress: dict[str, Any] | None
    error: JobError | None
    changes: list[dict[str, Any]] = Field([], description="what was changed while it was paused, and by whom")
    n_events: int = Field(description="how many events it has: the `seq` of the last")


class JobSummary(AnyJob):
    """A job as lists show it."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    fine_tuned_model: str | None
    training_file: str
    validation_file: str | None
    hyperparameters: dict[str, Any] = Field(description="every 'auto' decided")
    method: None = None
    integrations: list[Any] = []
    result_files: list[str] = []
    trained_tokens: None = None
    task: str
    head: dict[str, Any] = Field(description="modules, number of classes, and whether it is new")
    freeze: dict[str, Any]
    capture: list[str] | None = Field(None, description="modules whose activations are saved at the end")
    timings: Seconds


class Plan(BaseModel):
    """What a freeze spec comes to on the network that will be trained, and what that takes: an estimate.

    In a job it is as it was at submission; jobs of versions before the figures have none.
    """

    object: Literal["fine_tuning.plan"] = "fine_tuning.plan"
    model: str
    head: dict[str, Any]
    phases: list[PlanPhase]
    aliases: dict[str, str]
    memory: Memory | None = None
    fits: list[Fit] = Field([], description="an answer for each kind of node there is")
    warnings: list[str] = []
    checkpoint: CheckpointSize | None = None
    artifacts: ArtifactSizes | None = None
    prefix: Prefix | None = None
    batch_norm: BatchNorm | None = None


class JobView(JobSummary):
    """A job with everything that is known of it."""

    freeze_plan: Plan
    attempts: list[AttemptView]
    result: dict[str, Any] | None = Field(
        description="the result's figures and proofs; result.json has it all"
    )


class EventView(BaseModel):
    """Something that happened to a job. `seq` counts from 1 without a gap."""

    id: str
    object: str = Field(pattern=r"^[a-z_]+\.job\.event$")
    seq: int
    created_at: int
    level: str
    type: str
    message: str
    actor: str
    data: dict[str, Any]


class CheckpointFile(BaseModel):
    name: str
    bytes: int
    sha256: str


class CheckpointView(BaseModel):
    """A whole checkpoint in the store. The job goes on from the newest that is not damaged."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    epoch: int = Field(description="epochs done")
    attempt: int = Field(description="the number of the try that wrote it")
    is_newest: bool
    is_best: bool = Field(description="of the epoch with the lowest validation loss so far")
    is_damaged: bool
    bytes: int
    files: list[CheckpointFile]
    metrics: dict[str, float | None]


class ArtifactView(BaseModel):
    object: str = Field(pattern=r"^[a-z_]+\.job\.artifact$")
    name: str
    bytes: int
    sha256: str
    created_at: int


class MetricView(BaseModel):
    id: str
    object: Literal["fine_tuning.job.metric"] = "fine_tuning.job.metric"
    kind: str
    step: int
    epoch: int
    values: dict[str, Any]
    created_at: int


class ModelView(BaseModel):
    """A base model. `image_size` is [height, width] in pixels."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    source: Literal["torchvision", "registered"]
    version: str | None
    hash: str | None
    task: TaskName = Field(description="what its answers are made for")
    image_size: list[int] | None
    weights: list[str]
    num_classes: int | None
    head: list[str]
    blocks: list[str]
    n_parameters: int | None
    error: str | None = Field(None, description="why a registered model could not be built")


class TensorView(BaseModel):
    name: str
    shape: list[int]


class ModuleView(BaseModel):
    """A module, its exact class name, and the tensors that it holds itself."""

    path: str
    class_name: str
    parameters: list[TensorView]
    buffers: list[TensorView]


class LayersView(BaseModel):
    """A network: modules with parents before children, the head's paths, and the blocks in forward order.

    `aliases` gives each further name of a shared parameter the name that plans use.
    """

    id: str
    object: Literal["model.layers"] = "model.layers"
    modules: list[ModuleView]
    head: list[str]
    blocks: list[str]
    aliases: dict[str, str]


class SlotView(BaseModel):
    """`job_id`: the job that holds it, where the caller may know: its own team's, or any for an admin."""

    index: int
    state: str
    unhealthy_reason: str | None = Field(
        None, description="why its GPU is given no new job; the one that runs there is left alone"
    )
    job_id: str | None = None


class NodeView(BaseModel):
    id: str
    object: Literal["node"] = "node"
    state: str
    accelerator: str
    memory_bytes: int | None
    slots: list[SlotView]
    models: list[str]
    registered_at: int
    last_seen_at: int
    drained_at: int | None = Field(
        None, description="since when an operator keeps it from work; a worker that leaves shows in the state"
    )


def unix(moment: datetime) -> int:
    """Whole seconds since the epoch."""
    return int(moment.timestamp())


def unix_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else unix(moment)
