"""What a training run has to show for itself: result.json with its proofs and figures, and model.json."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from shared.domain.activations import SavedActivations
from shared.domain.changes import HeldFrom
from shared.domain.delta import ModelBase, TrainedPart
from shared.domain.events import Metrics
from shared.domain.freeze import FreezePlan
from shared.domain.resolved import Architecture, ResolvedPreprocessing
from shared.domain.shape import Shape
from shared.domain.spec import TaskName


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
