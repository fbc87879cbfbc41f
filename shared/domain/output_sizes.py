"""What a run writes, in bytes: a checkpoint at its largest, and the weights among its artifacts.

It follows what `checkpoints.py`, `state.py` and `results.py` of the trainer put into their files: safetensors
files are their tensors with a header of JSON, `state.pt` is a zip of a pickle and a file for each tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from shared.domain.freeze_plan import PlanPhase
from shared.domain.memory import Training, moments
from shared.domain.module_tree import ModuleTree
from shared.domain.plan_figures import ArtifactSizes, CheckpointSize
from shared.domain.tensor_bytes import TensorBytes

# What an entry takes beside its numbers, measured: the type, shape and place of a tensor in a safetensors
# header; a tensor in state.pt, in its pickle and as a file of the zip; a hash in hexadecimal.
_HEADER_ENTRY = 75
_STATE_ENTRY = 290
_HASH_ENTRY = 78
_STEP_BYTES = 4
# Of trainable.safetensors: quotes to be escaped in each entry of the other header, and what names the base.
_ESCAPES = 10
_HASHES_OF_BASE = 450
# Of state.pt as a whole, of each rank (torch's, Python's and numpy's generators), of each epoch's history.
_STATE_BASE = 4_000
_OF_A_RANK = 15_200
_OF_AN_EPOCH = 70
# Of the kept epoch's evaluation, by class, and by cell of the confusion matrix, which has an end.
_OF_A_CLASS = 40
_OF_A_CELL = 3
_MOST_CLASSES_IN_MATRIX = 1_000


@dataclass(frozen=True)
class Tensors:
    """Names with their bytes."""

    n: int
    bytes: int
    letters: int

    @classmethod
    def of(cls, named: Iterable[tuple[str, int]]) -> Tensors:
        found = list(named)
        return cls(len(found), sum(size for _, size in found), sum(len(name) for name, _ in found))

    @property
    def header(self) -> int:
        return self.letters + self.n * _HEADER_ENTRY

    @property
    def as_safetensors(self) -> int:
        return self.bytes + self.header


def checkpoint_size(
    weighed: TensorBytes, phases: Sequence[PlanPhase], training: Training, num_classes: int | None
) -> CheckpointSize:
    """The worst phase's, where the best epoch so far is not the last one."""
    frozen = _frozen_always(weighed, phases)
    moving = Tensors.of((n, size) for n, size in _all(weighed) if n not in frozen).as_safetensors
    keeps_best = training.validates and training.hyperparameters.keep == "best"
    optimizer = max(_optimizer(weighed, phase, training) for phase in phases)
    other = _plain(training, num_classes) + max(_hashes(weighed, phase, frozen) for phase in phases)
    best = moving if keeps_best else 0
    return CheckpointSize(
        moving_bytes=moving,
        best_bytes=best,
        optimizer_bytes=optimizer,
        other_bytes=other,
        total_bytes=moving + best + optimizer + other,
    )


def artifact_sizes(tree: ModuleTree, weighed: TensorBytes, phases: Sequence[PlanPhase]) -> ArtifactSizes:
    """Of model.safetensors and trainable.safetensors, in which each name of a shared tensor has a copy.

    The second holds what some phase may change, and the header of the first.
    """
    frozen = _frozen_always(weighed, phases)
    aliased = ((alias, weighed.parameters[name]) for alias, name in tree.aliases.items())
    whole = [*_all(weighed), *aliased]
    moved = Tensors.of((n, size) for n, size in whole if tree.aliases.get(n, n) not in frozen)
    model = Tensors.of(whole)
    return ArtifactSizes(
        model_bytes=model.as_safetensors,
        trainable_bytes=moved.as_safetensors + model.header + model.n * _ESCAPES + _HASHES_OF_BASE,
    )


def _all(weighed: TensorBytes) -> Iterable[tuple[str, int]]:
    yield from weighed.parameters.items()
    yield from weighed.buffers.items()


def _frozen_always(weighed: TensorBytes, phases: Sequence[PlanPhase]) -> Collection[str]:
    """The parameters and buffers that no phase may change."""
    frozen = set.intersection(*(set(phase.frozen) for phase in phases))
    still = set.intersection(*(set(phase.still) for phase in phases))
    return frozen | {name for name in weighed.buffers if name.rpartition(".")[0] in still}


def _optimizer(weighed: TensorBytes, phase: PlanPhase, training: Training) -> int:
    gathered = moments(training.hyperparameters)
    counts_steps = training.hyperparameters.optimizer == "adamw"
    data = gathered * sum(weighed.parameters[name] for name in phase.trainable)
    n_tensors = (gathered + counts_steps) * len(phase.trainable)
    return data + n_tensors * _STATE_ENTRY + counts_steps * _STEP_BYTES * len(phase.trainable)


def _plain(training: Training, num_classes: int | None) -> int:
    sizes = _STATE_BASE + _OF_A_RANK * training.world_size
    sizes += _OF_AN_EPOCH * training.hyperparameters.n_epochs
    if training.validates and num_classes is not None:
        cells = num_classes**2 if num_classes <= _MOST_CLASSES_IN_MATRIX else 0
        sizes += _OF_A_CLASS * num_classes + _OF_A_CELL * cells
    return sizes


def _hashes(weighed: TensorBytes, phase: PlanPhase, frozen: Collection[str]) -> int:
    """Of what this phase alone freezes: a name and a hash each."""
    still = set(phase.still)
    buffers = [name for name in weighed.buffers if name.rpartition(".")[0] in still]
    return sum(len(name) + _HASH_ENTRY for name in (*phase.frozen, *buffers) if name not in frozen)
