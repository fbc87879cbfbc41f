"""The memory that training takes on one device, reckoned from the network as data: an estimate, part by part.

Where the rules come from:

- Gradients: one for each parameter that trains, of its type. With DistributedDataParallel and
  `gradient_as_bucket_view=True` they are views into its buckets, so there is no second copy
  (docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html).
- Optimizer: AdamW holds `exp_avg` and `exp_avg_sq` for each parameter that got a gradient, and its `step` on
  the host; SGD holds `momentum_buffer` where momentum is not 0 (`_init_group` in torch/optim/adam.py, sgd.py)
  On CUDA both update all parameters at once, with "~ sizeof(params) more peak memory" for intermediates
  (torch/optim/optimizer.py on `foreach`); SGD has none of it without weight decay.
- Activations: the tensors that operations save for their backward, and only those that it reads
  (docs.pytorch.org/docs/stable/notes/autograd.html, "Saved tensors"); `flow_needs` counts them.
- Gradient checkpointing: a block keeps what it reads, and all else only while it runs again in the backward
  (docs.pytorch.org/docs/stable/checkpoint.html).
- Autocast: convolutions and linear layers run on copies in half precision and save these, so that activations
  halve and the weights that backward reads have a second, half copy; normalisation over layers and groups
  keeps computing in float32 (docs.pytorch.org/docs/stable/amp.html, the lists of operations).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.domain.device import Device
from shared.domain.flow_bytes import FlowBytes
from shared.domain.freeze_plan import PlanPhase
from shared.domain.plan_figures import PhaseMemory
from shared.domain.spec import ResolvedHyperparameters
from shared.domain.tensor_bytes import TensorBytes

CONTEXT_BYTES: Mapping[Device, int] = {"cuda": 500 * 2**20, "cpu": 400 * 2**20}
"""Of the process alone: the CUDA context with the workspaces of cuBLAS and cuDNN; Python with torch."""

# A colour of a pixel comes as a byte and becomes a float.
_PIXEL_BYTES = 3 * (1 + 4)
# The trainer evaluates twice the batch that it trains.
_EVALUATED_AT_ONCE = 2


@dataclass(frozen=True)
class Training:
    """What of a job decides its memory, beside network and freeze plan. `area` is a picture's, in pixels."""

    hyperparameters: ResolvedHyperparameters
    area: int
    world_size: int
    validates: bool

    @property
    def batch_size_per_device(self) -> int:
        return self.hyperparameters.batch_size // self.world_size

    def is_half(self, device: Device) -> bool:
        """Whether it computes in half precision: unasked, GPUs do and CPUs do not."""
        asked = self.hyperparameters.precision
        return asked in ("bf16", "fp16") or (asked == "auto" and device == "cuda")


@dataclass(frozen=True, slots=True)
class SampleNeeds:
    """Bytes for each sample of a batch: kept for backward, beside it in one step, and in an evaluation."""

    activations: int
    passing: int
    evaluation: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What one phase takes of a device: bytes whatever the batch, and bytes for each of its samples.

    `update` is what the optimizer takes for its step, `picture` the input of one sample. `sample` is None
    where the network's flow is not known.
    """

    from_epoch: int
    weights: int
    gradients: int
    optimizer: int
    autocast: int
    context: int
    update: int
    picture: int
    sample: SampleNeeds | None

    def at(self, batch_size: int) -> PhaseMemory:
        """The parts with `batch_size` samples on the device."""
        fixed = self.weights + self.gradients + self.optimizer + self.autocast + self.context
        pictures = self.picture * batch_size
        activations = transient = total = None
        if self.sample is not None:
            activations = self.sample.activations * batch_size
            transient = self._on_top(self.sample, batch_size, pictures + activations)
            total = fixed + pictures + activations + transient
        return PhaseMemory(
            from_epoch=self.from_epoch,
            weights_bytes=self.weights,
            gradients_bytes=self.gradients,
            optimizer_bytes=self.optimizer,
            autocast_bytes=self.autocast,
            activations_bytes=activations,
            input_bytes=pictures,
            transient_bytes=transient,
            context_bytes=self.context,
            total_bytes=total,
        )

    def _on_top(self, sample: SampleNeeds, batch_size: int, held: int) -> int:
        """A step of forward or backward finds all of `held` there; an evaluation and an update do not."""
        evaluation = sample.evaluation * batch_size - held
        return max(sample.passing * batch_size, evaluation, self.update - held)


def needs_of(
    weighed: TensorBytes, phase: PlanPhase, flow: FlowBytes | None, training: Training, device: Device
) -> Needs:
    """What `phase` takes of one `device`; `flow` is what the phase makes of the network's flow."""
    trained = sum(weighed.parameters[name] for name in phase.trainable)
    is_half = training.is_half(device)
    copied = flow.half_copied if flow and is_half else ()
    return Needs(
        from_epoch=phase.from_epoch,
        weights=weighed.total,
        gradients=trained,
        optimizer=trained * moments(training.hyperparameters),
        autocast=sum(weighed.parameters[name] for name in copied) // 2,
        context=CONTEXT_BYTES[device],
        update=_update(trained, training.hyperparameters) if device == "cuda" else 0,
        picture=_PIXEL_BYTES * training.area,
        sample=_sample_needs(flow, training, is_half=is_half) if flow else None,
    )


def peak(phases: Sequence[Needs], batch_size: int) -> int | None:
    """Bytes on one device in the worst phase, None where they are not known."""
    totals = [needs.at(batch_size).total_bytes for needs in phases]
    return max((total for total in totals if total is not None), default=None)


def largest_batch(phases: Sequence[Needs], memory_bytes: int, most: int) -> int:
    """The largest batch of at most `most` samples with which a device holds every phase; 0 if none does."""
    return bisect_right(range(1, most + 1), memory_bytes, key=lambda batch: peak(phases, batch) or 0)


def gib(n_bytes: int) -> str:
    """A size of memory in words."""
    return f"{n_bytes / 2**30:.1f} GiB"


def moments(hyperparameters: ResolvedHyperparameters) -> int:
    """How many tensors of its own size the optimizer gathers of each parameter that trains."""
    if hyperparameters.optimizer == "sgd":
        return 1 if hyperparameters.momentum else 0
    return 2


def _update(trained: int, hyperparameters: ResolvedHyperparameters) -> int:
    has_intermediates = hyperparameters.optimizer == "adamw" or hyperparameters.weight_decay
    return trained if has_intermediates else 0


def _sample_needs(flow: FlowBytes, training: Training, *, is_half: bool) -> SampleNeeds:
    share = 0.5 if is_half else 1.0
    kept = flow.kept.bytes * share + flow.kept.float32 * (1 - share)
    at_once = _EVALUATED_AT_ONCE * (flow.evaluating * share + _PIXEL_BYTES * training.area)
    return SampleNeeds(
        activations=round(kept),
        passing=round(flow.passing * share),
        evaluation=round(at_once) if training.validates else 0,
    )
