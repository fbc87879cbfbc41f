"""What a person may ask for: the body of a fine-tuning job, field by field, with its limits.

Shapes and single-field limits only. What needs other facts (the model's tree, the files, the nodes) is
checked where the job is submitted. Unknown fields are refused everywhere.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shared.domain.freeze import FreezeSpec, parse_freeze
from shared.domain.module_selection import ModulePatterns
from shared.domain.retention import KEPT_UNLESS_TOLD

Auto = Literal["auto"]
Keep = Literal["best", "last"]
Normalize = Literal["imagenet", "none"]
TaskName = Literal["classification", "multilabel", "segmentation", "reconstruction", "custom"]
ImageSide = Annotated[int, Field(ge=8, le=2048)]
NEpochs = Annotated[int, Field(ge=1, le=10_000)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
DurationS = Annotated[int, Field(ge=1, le=30 * 24 * 3600)]
LARGEST_BATCH = 65_536
BatchSize = Annotated[int, Field(ge=1, le=LARGEST_BATCH)]


class Strict(BaseModel):
    """A request shape: unknown fields, numbers in quotes or as true, and non-finite ones are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class HeadSpec(Strict):
    """The layer that answers. `module` names it where it is not the model's own head."""

    num_classes: int | None = Field(None, ge=2, le=100_000)
    module: str | None = Field(None, min_length=1, max_length=200)


class Hyperparameters(Strict):
    """How to train. `batch_size` is global: the ranks share it."""

    n_epochs: NEpochs | Auto = "auto"
    batch_size: BatchSize | Auto = "auto"
    learning_rate: LearningRate | Auto = "auto"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float | None = Field(None, ge=0, lt=1, description="sgd only; 0.9 when left out")
    weight_decay: float = Field(0.0001, ge=0, le=10)
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(0, ge=0, le=1_000_000, description="linear warm-up, in optimizer steps")
    gradient_clip_norm: float | None = Field(None, gt=0, le=1e6)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 or fp16 autocast where the device has it, fp32 on CPU"
    )
    sync_batch_norm: bool = Field(
        False, description="batch normalisation that trains uses the statistics of all ranks' samples"
    )
    gradient_checkpointing: bool = Field(
        False, description="blocks run again in the backward instead of keeping what they computed"
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, le=10_000, description="epochs without a better validation loss before the job ends"
    )
    keep: Keep = Field(
        "best",
        description="which epoch's model: best has the lowest validation loss; with last, validation data "
        "picks nothing, so that the accuracy on it is one on unseen pictures",
    )
    save_total_limit: int = Field(
        KEPT_UNLESS_TOLD,
        ge=1,
        le=10_000,
        description="how many checkpoints stay in the store: the newest and the best in any case, then those "
        "before the newest",
    )

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> Hyperparameters:
        if self.momentum is not None and self.optimizer != "sgd":
            raise ValueError("momentum is for optimizer 'sgd'; adamw has its own moments, leave momentum out")
        return self


class AnyPreprocessing(Strict):
    """From a stored picture to the model's input, for every kind of job."""

    image_size: ImageSide | Annotated[list[ImageSide], Field(min_length=2, max_length=2)] | None = Field(
        None, description="side, or [height, width], in pixels; left out: the model's own size"
    )
    max_unreadable_fraction: float = Field(
        0.01, ge=0, le=0.5, description="share of pictures that may be skipped because they cannot be read"
    )

    def size(self, default: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels."""
        if self.image_size is None:
            return default
        if isinstance(self.image_size, int):
            return (self.image_size, self.image_size)
        return (self.image_size[0], self.image_size[1])


class Preprocessing(AnyPreprocessing):
    """As training sees a picture."""

    augment: Literal["none", "flip", "crop_flip"] = Field(
        "none",
        description="flip: mirrored half the time; crop_flip: a random part of 60-100% of the area as well",
    )
    normalize: Normalize = Field("imagenet", description="channel means and deviations")


class Resources(Strict):
    """What the job needs at once. A device is a GPU, or a process on a CPU node."""

    devices_per_node: int = Field(1, ge=1, le=1024)
    nodes: int = Field(1, ge=1, le=1024)
    accelerator: str = Field(
        "any", min_length=1, max_length=64, description="any, cpu, cuda or a device's name"
    )
    min_memory_bytes: int | None = Field(
        None,
        ge=0,
        le=2**50,
        description="what a GPU must have, in place of the plan's estimate; 0: any will do",
    )

    @model_validator(mode="after")
    def _memory_is_of_gpus(self) -> Resources:
        if self.accelerator == "cpu" and self.min_memory_bytes is not None:
            raise ValueError(
                "min_memory_bytes is of GPUs, and the job asks for the accelerator 'cpu'; leave it out"
            )
        return self

    @property
    def world_size(self) -> int:
        return self.devices_per_node * self.nodes


MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
Metadata = Annotated[dict[MetadataKey, Annotated[str, Field(max_length=512)]], Field(max_length=16)]


class AnyJobSpec(Strict):
    """What every kind of job is asked with: the network that it starts from, and how it is to be run."""

    model: str = Field(
        min_length=1, max_length=200, description="torchvision name, registered name or ftjob-..."
    )
    wait_for_model: bool = Field(False, description="with ftjob-...: wait for that job instead of 409")
    weights: str | None = Field(None, min_length=1, max_length=200)
    resources: Resources = Field(default_factory=Resources)
    priority: Priority = 0
    max_duration_s: DurationS | None = None
    seed: int = Field(0, ge=0, lt=2**31)
    suffix: str | None = Field(None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    metadata: Metadata | None = None


class JobSpec(AnyJobSpec):
    """The body of POST /v1/fine_tuning/jobs."""

    files_may_be_left_out: ClassVar[bool] = False

    training_file: str = Field(min_length=1, max_length=200)
    validation_file: str | None = Field(None, min_length=1, max_length=200)
    validation_fraction: float | None = Field(None, gt=0, lt=1)
    task: TaskName = "classification"
    head: HeadSpec | None = None
    freeze: Annotated[FreezeSpec, BeforeValidator(parse_freeze)] = Field(
        default_factory=lambda: parse_freeze("none"), validate_default=True
    )
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)
    preprocessing: Preprocessing = Field(default_factory=Preprocessing)
    capture: ModulePatterns | None = Field(
        None, description="modules whose activations on the validation samples are saved at the end"
    )

    @model_validator(mode="after")
    def _one_source_of_validation(self) -> JobSpec:
        if self.validation_file is not None and self.validation_fraction is not None:
            raise ValueError("give validation_file or validation_fraction, not both")
        return self

    @model_validator(mode="after")
    def _validation_where_it_is_needed(self) -> JobSpec:
        if self.has_validation or self.files_may_be_left_out:
            return self
        if self.hyperparameters.early_stopping_patience:
            raise ValueError("early_stopping_patience needs a validation_file or a validation_fraction")
        if self.capture:
            raise ValueError("capture needs a validation_file or a validation_fraction")
        return self

    @property
    def has_validation(self) -> bool:
        return self.validation_file is not None or self.validation_fraction is not None


class PlanSpec(JobSpec):
    """The body of POST /v1/fine_tuning/plan: a job's, whose files may be left out."""

    files_may_be_left_out = True

    training_file: str | None = Field(None, min_length=1, max_length=200)  # type: ignore[assignment]  # looser on purpose


class ResolvedHyperparameters(Strict):
    """Hyperparameters with every "auto" decided."""

    n_epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adamw", "sgd"]
    momentum: float
    weight_decay: float
    lr_schedule: Literal["cosine", "constant"]
    warmup_steps: int
    gradient_clip_norm: float | None
    label_smoothing: float
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    sync_batch_norm: bool = False
    gradient_checkpointing: bool = False
    early_stopping_patience: int | None
    keep: Keep = "best"
    save_total_limit: int = KEPT_UNLESS_TOLD


def resolve_hyperparameters(
    asked: Hyperparameters, world_size: int, n_training: int | None = None
) -> ResolvedHyperparameters:
    """Decide every "auto": 3 epochs, 32 samples a rank (fewer if there are), 0.001 for adamw, 0.01 for sgd.

    `n_training` is the number of training samples, where it is known. Raises ValueError where the ranks do
    not divide the batch, and where the samples do not fill it.
    """
    if n_training is not None and n_training < world_size:
        raise ValueError(f"{n_training} training samples cannot be shared out over {world_size} ranks")
    most = (n_training or 32 * world_size) // world_size
    batch = min(32, most) * world_size if asked.batch_size == "auto" else asked.batch_size
    if n_training is not None and batch > n_training:
        raise ValueError(
            f"batch_size {batch} is more than the {n_training} training samples; "
            f'at most {most * world_size} would fit, and "auto" takes what fits'
        )
    check_divided(batch, world_size)
    rate = {"adamw": 0.001, "sgd": 0.01}[asked.optimizer]
    decided = asked.model_dump()
    decided["batch_size"] = batch
    decided["n_epochs"] = 3 if asked.n_epochs == "auto" else asked.n_epochs
    decided["learning_rate"] = rate if asked.learning_rate == "auto" else asked.learning_rate
    decided["momentum"] = 0.9 if asked.momentum is None else asked.momentum
    return ResolvedHyperparameters.model_validate(decided)


def check_divided(batch_size: int, world_size: int) -> None:
    """Raises ValueError where the ranks do not divide the global batch."""
    if batch_size % world_size:
        nearest = max(1, round(batch_size / world_size)) * world_size
        raise ValueError(
            f"batch_size {batch_size} is global and {world_size} ranks do not divide it; {nearest} would fit"
        )
