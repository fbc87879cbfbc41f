"""The shapes that trainer, worker and API agree on: the files of a run, and the lines of its progress.

    in    spec.json (TrainerSpec)   stop.json (StopRequest)   heartbeat.json (Heartbeat)
    out   progress.jsonl (ProgressLine a line)   checkpoints/step-000123/
          error-rank<n>.json (ErrorReport)   outcome.json (OutcomeReport)
          model.safetensors   trainable.safetensors   metrics.jsonl
          result.json and model.json, see shared/domain/training_result.py

Paths in a TrainerSpec are local to the node. Times are seconds since the epoch unless a name says else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from shared.domain.activations import ActivationsWanted
from shared.domain.changes import SpecChange
from shared.domain.data_set import ArchiveFormat
from shared.domain.device import Device
from shared.domain.freeze import FreezePlan, FreezeSpec
from shared.domain.job import Outcome, StopReason
from shared.domain.job_kind import JobKind
from shared.domain.resolved import Architecture, ResolvedPreprocessing, Weights
from shared.domain.shape import Shape
from shared.domain.spec import ResolvedHyperparameters, TaskName

SPEC_FILE = "spec.json"
STOP_FILE = "stop.json"
HEARTBEAT_FILE = "heartbeat.json"
PROGRESS_FILE = "progress.jsonl"
RESULT_FILE = "result.json"
OUTCOME_FILE = "outcome.json"
LOG_FILE = "logs.txt"
MODEL_FILE = "model.safetensors"
MODEL_CARD_FILE = "model.json"
TRAINABLE_FILE = "trainable.safetensors"
METRICS_FILE = "metrics.jsonl"
CHECKPOINT_FOLDER = "checkpoints"
MANIFEST_FILE = "manifest.json"

# The codes with which a trainer refuses the checkpoint that it was to go on from: an earlier one may do.
CHECKPOINT_MISMATCH = "checkpoint_mismatch"
UNUSABLE_CHECKPOINT = frozenset({"damaged_checkpoint", CHECKPOINT_MISMATCH})


Metrics = Annotated[
    dict[str, float], Field(default_factory=dict, description="the task's own figures by name")
]


class WeightsFile(Shape):
    """Weights on the node's disk."""

    path: str
    format: Literal["safetensors", "torch"]
    sha256: str = Field(
        description="of the whole file, or its first 8 digits where that is all that was published"
    )
    source: Weights | None = Field(None, description="whence it came; None for a file that a person named")


class DataSource(Shape):
    """Samples on the node's disk: an unpacked archive, or one Parquet file."""

    path: str
    name: str | None = Field(None, description="what a person calls the file, for errors in it")
    format: Literal["parquet"] | ArchiveFormat
    image_column: str | None = None
    label_column: str | None = None


class TrainerSpec(Shape):
    """spec.json: all that a run is told."""

    kind: Literal[JobKind.FINE_TUNING] = JobKind.FINE_TUNING
    job_id: str
    attempt_id: str
    attempt: int = Field(description="1 for the first try")
    task: TaskName
    base: Architecture = Field(description="the network that `weights` fit")
    target: Architecture = Field(
        description="the network that is trained: `base` with its head replaced or kept"
    )
    replace_head: bool
    weights: WeightsFile | None = Field(description="None: random, from `seed`")
    train: DataSource
    validation: DataSource | None
    validation_fraction: float | None
    class_names: list[str] = Field(description="in the order of the class numbers")
    freeze: FreezeSpec
    freeze_plan: FreezePlan
    hyperparameters: ResolvedHyperparameters
    preprocessing: ResolvedPreprocessing
    device: Device
    world_size: int
    seed: int
    resume_from: str | None = Field(None, description="a checkpoint's folder")
    max_duration_s: float | None = Field(None, description="of running, over all tries")
    spent_s: float | None = Field(None, description="of it, in earlier tries; None: as the checkpoint has it")
    capture: ActivationsWanted | None = Field(None, description="of the kept model on the validation data")
    changes: list[SpecChange] = Field(
        default_factory=list, description="made while the job was paused; the fields above have them"
    )


class StopRequest(Shape):
    """stop.json: leave at the next step boundary, after a checkpoint where the reason asks for one."""

    reason: StopReason
    grace_s: float


class Heartbeat(Shape):
    """heartbeat.json: CLOCK_BOOTTIME read before a renewal was sent, written after it was confirmed."""

    boottime_s: float


RunPhase = Literal["loading", "preflight", "probe", "training", "saving", "extracting"]


class PhaseLine(Shape):
    """The run enters a phase."""

    type: Literal["phase"] = "phase"
    phase: RunPhase
    time: float


class TrainLine(Shape):
    """Averages over the steps since the last line; at most one a second, and the last step of each epoch."""

    type: Literal["train"] = "train"
    time: float
    epoch: int = Field(description="counted from 0")
    n_epochs: int
    step: int = Field(description="optimizer steps done, over the whole run")
    total_steps: int
    loss: float
    accuracy: float | None = Field(None, description="classification only")
    metrics: Metrics
    main_metric: str | None = Field(None, description="the one of `metrics` that tells most")
    learning_rate: float
    samples_per_s: float
    eta_s: float | None = Field(description="time left of training")


class ValidationLine(Shape):
    """Every validation sample exactly once, after an epoch."""

    type: Literal["validation"] = "validation"
    time: float
    epoch: int
    step: int
    loss: float
    accuracy: float | None = Field(None, description="classification only")
    metrics: Metrics
    main_metric: str | None = Field(None, description="the one of `metrics` that tells most")
    n_samples: int
    is_best: bool


class ExtractionLine(Shape):
    """Samples whose activations are computed; at most one a second, and the last."""

    type: Literal["extraction"] = "extraction"
    time: float
    n_done: int
    n_samples: int
    samples_per_s: float
    eta_s: float | None = Field(description="time left of extracting")


class ShardLine(Shape):
    """A whole shard of activations stands on disk."""

    type: Literal["shard"] = "shard"
    time: float
    file: str = Field(description="relative to the run's folder")
    n_samples: int


class CheckpointLine(Shape):
    """A whole checkpoint stands on disk: its manifest is written."""

    type: Literal["checkpoint"] = "checkpoint"
    time: float
    epoch: int = Field(description="epochs done")
    step: int
    folder: str = Field(description="relative to the run's folder")
    is_best: bool
    metrics: dict[str, float]


class NoteLine(Shape):
    """Something a person should know: a decision, a skipped picture."""

    type: Literal["note"] = "note"
    time: float
    level: Literal["info", "warn", "error"]
    code: str
    message: str
    data: dict[str, Any] = Field(default_factory=dict)


ProgressLine = Annotated[
    PhaseLine | TrainLine | ValidationLine | ExtractionLine | ShardLine | CheckpointLine | NoteLine,
    Field(discriminator="type"),
]
PROGRESS_LINE: TypeAdapter[ProgressLine] = TypeAdapter(ProgressLine)


class ManifestEntry(Shape):
    name: str
    bytes: int
    sha256: str


class CheckpointManifest(Shape):
    """manifest.json, written last: a folder without it is no checkpoint."""

    epoch: int
    step: int
    is_best: bool
    metrics: dict[str, float]
    files: list[ManifestEntry]


class ErrorReport(Shape):
    """Why a rank, or the launcher on its behalf, gave up."""

    code: str = Field(description="a stable word: one of shared/domain/failures.py")
    message: str = Field(description="what was wrong")
    hint: str | None = Field(None, description="what would help")
    traceback: str | None = Field(None, description="the end of the failing rank's own")
    rank: int | None = None
    attempt: int | None = Field(None, description="1 for the first try; None where none was made")
    time: float


class OutcomeReport(Shape):
    """outcome.json: how the run ended; never an exit code."""

    outcome: Outcome
    reason: StopReason | None = None
    error: ErrorReport | None = None
