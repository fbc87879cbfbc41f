"""A job with every default decided: written once when it is submitted, read by the worker."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.domain.freeze import FreezeSpec
from shared.domain.shape import Shape
from shared.domain.spec import ResolvedHyperparameters, TaskName


class Architecture(Shape):
    """What it takes to build a network whose state dict can be loaded: name, classes, head."""

    source: Literal["torchvision", "registered"]
    name: str
    version: str | None = Field(None, description="registered models: the distribution's version")
    hash: str | None = Field(None, description="registered models: sha256 of the package's sources")
    num_classes: int
    head: list[str] = Field(
        description="module paths whose last dimension is num_classes; the first is the main one"
    )


class ResolvedPreprocessing(Shape):
    height: int
    width: int
    mean: list[float]
    std: list[float]
    augment: Literal["none", "flip", "crop_flip"]
    max_unreadable_fraction: float


class NoWeights(Shape):
    """Random, from the job's seed."""

    kind: Literal["none"] = "none"


class PublishedWeights(Shape):
    """torchvision's own: fetched by the supervisor, or found in the node's weights_dir by `file_name`."""

    kind: Literal["published"] = "published"
    name: str
    url: str
    file_name: str
    sha256: str = Field(description="whole, or the first 8 digits where that is all that was published")


class UploadedWeights(Shape):
    """A safetensors file that the team uploaded."""

    kind: Literal["file"] = "file"
    file_id: str


class JobWeights(Shape):
    """The model that another job of the team made."""

    kind: Literal["job"] = "job"
    job_id: str


Weights = Annotated[NoWeights | PublishedWeights | UploadedWeights | JobWeights, Field(discriminator="kind")]


class ResolvedJob(Shape):
    """All that the worker needs beside the files themselves."""

    task: TaskName
    base: Architecture = Field(description="the network that `weights` fit")
    target: Architecture = Field(
        description="the network that is trained: `base` with its head replaced or kept"
    )
    replace_head: bool
    weights: Weights
    class_names: list[str] = Field(description="in the order of the class numbers")
    freeze: FreezeSpec
    hyperparameters: ResolvedHyperparameters
    preprocessing: ResolvedPreprocessing
    validation_fraction: float | None
    max_duration_s: int | None
    seed: int
    capture: list[str] = Field(
        default_factory=list, description="modules whose activations are saved, in the network's order"
    )
