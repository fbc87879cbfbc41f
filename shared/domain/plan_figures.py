"""What a freeze plan comes to in bytes and in layers: a job keeps these figures, the API shows them.

Where a figure is for each phase of the freeze plan, its list stands in the order of the plan's phases, and
`from_epoch` is the plan's own. Bytes that nobody can tell are None, and `reason` says why.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.device import Device


class Figure(BaseModel):
    """A figure is made once and stays as it was."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhaseMemory(Figure):
    """What one device holds at the worst moment of a phase. The parts add up to `total_bytes`."""

    from_epoch: int
    weights_bytes: int = Field(description="parameters and buffers, frozen ones included")
    gradients_bytes: int = Field(description="of what trains; on several devices they are DDP's buckets")
    optimizer_bytes: int = Field(description="what the optimizer gathers of what trains")
    autocast_bytes: int = Field(description="copies of weights in half precision that backward needs")
    activations_bytes: int | None = Field(description="what the forward keeps for the backward")
    input_bytes: int = Field(description="the batch of pictures, as pixels and normalised")
    transient_bytes: int | None = Field(
        description="the most that comes on top of these for a moment: in a step of the forward or backward, "
        "in an evaluation, or while the optimizer updates"
    )
    context_bytes: int = Field(description="an allowance for the process itself: on a GPU its CUDA context")
    total_bytes: int | None


class Memory(Figure):
    """An estimate of what training takes on one device; `total_bytes` is that of the worst phase."""

    device: Device
    precision: str
    batch_size_per_device: int
    total_bytes: int | None
    phases: tuple[PhaseMemory, ...]
    method: str
    left_out: str
    reason: str | None = None


class CheckpointSize(Figure):
    """What a checkpoint weighs at most: files of the run's checkpoint folder, those of the worst phase."""

    moving_bytes: int = Field(description="parameters and buffers that some phase may change")
    best_bytes: int = Field(description="the same of the best epoch so far, where one may be kept beside it")
    optimizer_bytes: int = Field(description="what the optimizer has gathered")
    other_bytes: int = Field(description="random generators, history, figures of the kept epoch, proofs")
    total_bytes: int


class ArtifactSizes(Figure):
    """What the result weighs: the whole model, and the part of it that the base does not have."""

    model_bytes: int
    trainable_bytes: int


class PrefixPart(Figure):
    """The part of a network, from its input on, that computes the same for a picture in every epoch.

    `modules` are the topmost paths that lie in it whole. `until` is the first module that does not. To have
    the part's results in store takes `output_bytes_per_sample`, in float32.
    """

    modules: tuple[str, ...]
    until: str | None
    n_parameters: int
    share_of_forward: float = Field(description="its share of the bytes that all steps of a forward put out")
    output_bytes_per_sample: int


class PhasePrefix(PrefixPart):
    from_epoch: int


class Prefix(PrefixPart):
    """The fixed prefix of the whole run, and that of each phase alone."""

    phases: tuple[PhasePrefix, ...]
    note: str | None = None


class PhaseBatchNorm(Figure):
    """How many normalisation layers train, are in eval mode, and count statistics on while frozen."""

    from_epoch: int
    n_training: int
    n_still: int
    n_exempt: int


class BatchNorm(Figure):
    """The policy for normalisation layers in frozen parts, and what it comes to."""

    policy: Literal["freeze", "train"]
    phases: tuple[PhaseBatchNorm, ...]


class Fit(Figure):
    """Whether one device of a kind of node holds the job's share; None where nobody can tell.

    `largest_batch_size` is the largest global batch that this kind holds, 0 where none does.
    """

    accelerator: str
    memory_bytes: int | None
    nodes: int
    fits: bool | None
    needed_bytes: int | None
    largest_batch_size: int | None
    reason: str | None = None


class PlanFigures(Figure):
    """All that does not depend on the nodes there are."""

    memory: Memory
    checkpoint: CheckpointSize
    artifacts: ArtifactSizes
    prefix: Prefix | None
    batch_norm: BatchNorm
