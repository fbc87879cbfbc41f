"""The shapes that trainer, worker and API agree on: the files of a run, and the lines of its progress.

    in    spec.json (TrainerSpec)   stop.json (StopRequest)   heartbeat.json (Heartbeat)
    out   progress.jsonl (ProgressLine a line)   checkpoints/step-000123/   result.json (TrainingResult)
          error-rank<n>.json (ErrorReport)   outcome.json (OutcomeReport)
          model.safetensors   model.json   trainable.safetensors   metrics.jsonl

Paths in a TrainerSpec are local to the node. Times are seconds since the epoch unless a name says else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from shared.domain.activations import ActivationsWanted, SavedActivations
from shared.domain.changes import HeldFrom, SpecChange
from shared.domain.data_set import ArchiveFormat
from shared.domain.delta import ModelBase, TrainedPart
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


class FindUnused(Shape):
    """DDP's find_unused_parameters, and why."""

    value: bool
    reason: str
    unused: list[str] = Field(
        default_factory=list, description="trainable parameters that took no part in the loss"
    )
    steps: dict[str, FindUnused] = Field(
        default_factory=dict, description="of each of the network's own training steps, where it brings any"
    )


class FrozenProof(Shape):
    """Hashes over the names and bytes of all frozen parameters and still buffers."""

    before: str
    after: str
    unchanged: bool
    n_parameters: int
    n_buffers: int
    left_out: list[str] = Field(default_factory=list, description="modules whose statistics move by request")


class RanksProof(Shape):
    """Checksums of all parameters, compared across ranks after each phase's first step and at its end."""

    world_size: int
    equal: bool
    checksum: str


class StepDigests(Shape):
    """Hashes over what is frozen in a training step, taken right before it and right after it."""

    step: int = Field(description="counted from 1, over the whole run")
    before: str
    after: str


class StepAccount(Shape):
    """What came of one of the network's own training steps in a phase, proved each time that it ran."""

    name: str
    n_trainable: int = Field(description="parameters, in elements")
    n_frozen: int
    done: int = Field(description="how often it ran")
    unchanged: bool
    n_checks: int = Field(description="how often the frozen part was compared, bit for bit, after the step")
    n_parameters: int = Field(description="tensors compared")
    n_buffers: int
    left_out: list[str] = Field(default_factory=list, description="modules whose statistics move by request")
    first: StepDigests | None = Field(None, description="of the first time that it ran in the phase")
    last: StepDigests | None = Field(None, description="of the last step of the last whole epoch")
    checked: str = Field(description="in words, how")


class PhaseAccount(Shape):
    """What came of one phase of the freeze plan, proved at its end against its start."""

    from_epoch: int
    n_trainable: int = Field(description="parameters, in elements")
    n_frozen: int
    find_unused_parameters: FindUnused
    frozen_proof: FrozenProof
    ranks: RanksProof
    recomputed: list[str] = Field(
        default_factory=list, description="with gradient checkpointing: blocks that ran again in the backward"
    )
    steps: list[StepAccount] = Field(
        default_factory=list, description="of the network's own training steps, where it brings any"
    )


class Evaluation(Shape):
    """The model that is kept, on the validation samples. What a task does not have is None."""

    loss: float
    n_samples: int
    metrics: Metrics
    main_metric: str | None = Field(None, description="the one of `metrics` that tells most")
    accuracy: float | None = Field(None, description="classification only")
    per_class_accuracy: dict[str, float | None] | None = Field(
        None, description="classification only; None for a class without samples"
    )
    confusion_matrix: list[list[int]] | None = Field(
        None,
        description="classification: pictures; segmentation: pixels; rows are the true class, columns the "
        "predicted one",
    )
    per_class_f1: dict[str, float | None] | None = Field(
        None, description="multilabel only, at a probability of 0.5; None for a class without samples"
    )
    per_class_iou: dict[str, float | None] | None = Field(
        None, description="segmentation only; None for a class that is neither there nor predicted"
    )
    per_class_average_precision: dict[str, float | None] | None = Field(
        None, description="multilabel only; None for a class without samples"
    )


class ModelCard(Shape):
    """model.json: what it takes to use the trained model."""

    job_id: str
    task: TaskName = "classification"
    output: str = Field("", description="in words, what the model's output means")
    architecture: Architecture
    class_names: list[str] = Field(description="in the order of the model's outputs")
    preprocessing: ResolvedPreprocessing
    resize: str = Field(description="in words, how a picture comes to be the model's input")
    weights_file: str
    weights_sha256: str
    trainable: TrainedPart
    base: ModelBase
    created: float
    versions: dict[str, str]


class TrainingResult(Shape):
    """result.json."""

    job_id: str
    spec: dict[str, Any] = Field(description="what ran, every default resolved; no path of the node in it")
    freeze_plan: FreezePlan
    find_unused_parameters: FindUnused = Field(description="over all phases: true where any of them needs it")
    frozen_proof: FrozenProof = Field(description="of the part that no phase moves")
    ranks: RanksProof = Field(description="after the last step")
    phases: list[PhaseAccount] = Field(description="those that were begun, in their order")
    n_trainable: int = Field(description="parameters, in elements, in the last phase")
    n_frozen: int
    n_train_samples: int
    n_validation_samples: int
    skipped_images: list[str]
    epochs: list[dict[str, Any]] = Field(description="each epoch's training averages and validation figures")
    best_epoch: int = Field(
        description="the one with the lowest validation loss; without validation data the last one"
    )
    kept_epoch: int = Field(description="the one whose model is saved and evaluated: best_epoch, or the last")
    stopped_early: bool
    evaluation: Evaluation | None
    activations: SavedActivations | None = Field(None, description="what `capture` asked for")
    changes: list[HeldFrom] = Field(
        default_factory=list, description="by what the run trained otherwise, and from which step on"
    )
    seconds: dict[str, float] = Field(description="of each phase of the run")
    versions: dict[str, str]
    decisions: dict[str, str] = Field(description="what was left to Thaw, and why it chose so")
