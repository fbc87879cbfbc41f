"""Hashes that prove what a run claims: the frozen part did not move, all ranks hold the same parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from shared.domain.freeze import FreezePlan
from shared.domain.training_result import FrozenProof, RanksProof
from worker.training.errors import TrainingFailed
from worker.training.freezing import FrozenPart, named_tensors
from worker.training.ranks import Ranks

Digests = Mapping[str, bytes]


def digest(tensor: Tensor) -> bytes:
    """sha256 over type, shape and bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    described = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    described.update(flat.view(torch.uint8).numpy().data)
    return described.digest()


def digests(model: nn.Module, names: Iterable[str]) -> Digests:
    """The digest of each named parameter or buffer of `model`."""
    tensors = named_tensors(model)
    return {name: digest(tensors[name]) for name in sorted(names)}


def combined(found: Digests) -> str:
    """One hash over names and digests."""
    whole = hashlib.sha256()
    for name, value in sorted(found.items()):
        whole.update(name.encode() + b"\0" + value)
    return whole.hexdigest()


def hash_of_plan(plan: FreezePlan) -> str:
    """One hash over what the phases decide."""
    decides = {"from_epoch", "trainable", "still", "lr_scale", "steps"}
    return hashlib.sha256(plan.model_dump_json(include={"phases": {"__all__": decides}}).encode()).hexdigest()


def prove_frozen(model: nn.Module, part: FrozenPart, before: Digests) -> FrozenProof:
    """Compares the frozen part with its digests from before training. Raises TrainingFailed if it moved."""
    after = digests(model, part.names)
    moved = [name for name, value in before.items() if after[name] != value]
    if moved:
        raise TrainingFailed(
            f"{len(moved)} frozen tensors moved while training, first of all {', '.join(moved[:5])}",
            code="frozen_part_moved",
            hint="the model changes them itself, in forward or outside of the optimizer",
        )
    return FrozenProof(
        before=combined(before),
        after=combined(after),
        unchanged=True,
        n_parameters=len(part.parameters),
        n_buffers=len(part.buffers),
        left_out=list(part.left_out),
    )


def prove_ranks_equal(model: nn.Module, ranks: Ranks, step: int) -> RanksProof:
    """Compares every parameter across the ranks. Raises TrainingFailed, on every rank, where they differ."""
    own = {name: digest(parameter) for name, parameter in model.named_parameters()}
    shortened = torch.tensor([int.from_bytes(value[:8], "big", signed=True) for value in own.values()])
    every = torch.stack(ranks.gather(shortened))
    differs = (every != every[0]).any(dim=0)
    if differs.any():
        names = [name for name, is_different in zip(own, differs.tolist(), strict=True) if is_different]
        raise TrainingFailed(
            f"after step {step} the ranks differ in {len(names)} parameters, first {', '.join(names[:5])}",
            code="ranks_differ",
        )
    return RanksProof(world_size=ranks.world_size, equal=True, checksum=combined(own))
