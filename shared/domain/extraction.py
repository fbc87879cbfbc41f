"""A feature extraction with every default decided, what its trainer is told, and what it answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter

from shared.domain.activations import ActivationsWanted, SavedActivations, StoredFile
from shared.domain.device import Device
from shared.domain.events import DataSource, TrainerSpec, WeightsFile
from shared.domain.job_kind import JobKind
from shared.domain.resolved import Architecture, ResolvedPreprocessing, Weights
from shared.domain.shape import Shape
from shared.domain.spec import TaskName
from shared.domain.training_result import FrozenProof


class ResolvedExtraction(Shape):
    """All that the worker needs beside the files themselves. `target` is the network that `weights` fit."""

    target: Architecture
    weights: Weights
    task: TaskName = Field(description="as which the labels are read; reconstruction: not at all")
    class_names: list[str] = Field(description="of the data set, in the order of the class numbers")
    wanted: ActivationsWanted
    shapes: dict[str, list[int] | None] = Field(
        default_factory=dict, description="what is saved of a sample; None where only a forward can tell"
    )
    estimated_bytes: int | None = Field(None, description="of all samples, where every shape is known")
    batch_size: int = Field(description="global; the ranks divide it")
    preprocessing: ResolvedPreprocessing
    max_duration_s: int | None
    seed: int


class ExtractorSpec(Shape):
    """spec.json of a run that extracts features: all that it is told."""

    kind: Literal[JobKind.FEATURE_EXTRACTION] = JobKind.FEATURE_EXTRACTION
    job_id: str
    attempt_id: str
    attempt: int = Field(description="1 for the first try")
    network: Architecture = Field(description="what `weights` fit")
    weights: WeightsFile | None = Field(description="None: random, from `seed`")
    data: DataSource
    task: TaskName = Field(description="as which the labels of `data` are read; reconstruction: not at all")
    class_names: list[str] = Field(description="in the order of the class numbers")
    wanted: ActivationsWanted
    batch_size: int = Field(description="global; the ranks divide it")
    preprocessing: ResolvedPreprocessing
    device: Device
    world_size: int
    seed: int
    finished: list[StoredFile] = Field(
        default_factory=list, description="shards that an earlier try has left in the store"
    )
    max_duration_s: float | None = Field(None, description="of running, over all tries")
    spent_s: float | None = Field(None, description="of it, in earlier tries")


class ExtractionResult(Shape):
    """result.json of such a run."""

    job_id: str
    spec: dict[str, Any] = Field(description="what ran, every default resolved; no path of the node in it")
    weights_sha256: str | None = Field(description="of the weights' file, as it was published or stored")
    network_proof: FrozenProof = Field(description="over the whole network, before and after")
    activations: SavedActivations
    skipped_images: list[str]
    seconds: dict[str, float] = Field(description="of each phase of the run")
    versions: dict[str, str]
    decisions: dict[str, str] = Field(description="what was left to Thaw, and why it chose so")


def _kind(value: Any) -> str:
    """A spec that does not say is of the older kind."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return str(kind or JobKind.FINE_TUNING)


AnyRunSpec = TrainerSpec | ExtractorSpec
RunSpec = Annotated[
    Annotated[TrainerSpec, Tag(JobKind.FINE_TUNING.value)]
    | Annotated[ExtractorSpec, Tag(JobKind.FEATURE_EXTRACTION.value)],
    Discriminator(_kind),
]
RUN_SPEC: TypeAdapter[AnyRunSpec] = TypeAdapter(RunSpec)


def batch_in_words(spec: AnyRunSpec) -> str:
    """Which batch size a run tries, for errors of memory."""
    size = spec.batch_size if isinstance(spec, ExtractorSpec) else spec.hyperparameters.batch_size
    picture = f"{spec.preprocessing.height}x{spec.preprocessing.width}"
    share = f"{size // spec.world_size} on each of {spec.world_size} ranks"
    return f"batch_size {size} ({share}) of {picture} pictures"
