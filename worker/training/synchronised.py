"""Batch normalisation by the statistics of all ranks' samples, for the layers that train.

A layer stays the same object at the same place and keeps its tensors: only its class is another while a phase
lasts, so that names, plan and saved state know nothing of it. On CUDA it is torch's SyncBatchNorm; that one
refuses the CPU, where the class below computes the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from shared.domain.freeze import PlanPhase
from worker.training.errors import TrainingFailed

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def layers_that_train(model: nn.Module, still: Collection[str]) -> list[str]:
    """The paths of the batch normalisation layers that use the statistics of the batch."""
    in_use = set(still)
    return [
        path
        for path, module in model.named_modules()
        if path not in in_use and type(module) in (*PLAIN, SyncBatchNormOnCpu, nn.SyncBatchNorm)
    ]


def check_has_effect(model: nn.Module, phases: Sequence[PlanPhase]) -> None:
    """Raises TrainingFailed where no phase trains a layer that could be synchronised."""
    if not any(layers_that_train(model, phase.still) for phase in phases):
        raise TrainingFailed(
            "sync_batch_norm would change nothing: no BatchNorm layer of this model trains",
            code="no_effect",
            hint="leave it out",
        )


def synchronise(model: nn.Module, still: Collection[str], device: torch.device) -> None:
    """Synchronises the layers that train, and them alone: what an earlier phase synchronised is put back."""
    training = set(layers_that_train(model, still))
    for path, module in model.named_modules():
        if path in training and type(module) in PLAIN:
            module.plain_class = type(module)
            module.__class__ = SyncBatchNormOnCpu if device.type == "cpu" else nn.SyncBatchNorm
            module.process_group = None
        elif path not in training and hasattr(module, "plain_class"):
            module.__class__ = module.plain_class
            del module.plain_class


class SyncBatchNormOnCpu(nn.modules.batchnorm._BatchNorm):
    """What torch's SyncBatchNorm computes, out of differentiable sums over all ranks."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [batch, channels, ...], got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            in_use: Tensor = super().forward(input)
            return in_use
        self._check_input_dim(input)
        others = [dim for dim in range(input.dim()) if dim != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        values = input.float()
        count = torch.full((1,), values.numel() / values.shape[1])
        summed = sum_over_ranks(torch.cat([values.sum(others), count]))
        n = summed[-1].detach()
        mean = summed[:-1] / n
        centred = values - mean.view(shape)
        variance = sum_over_ranks(centred.square().sum(others)) / n
        self._track(mean.detach(), variance.detach(), float(n))
        normalised: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            normalised = normalised * self.weight.view(shape)
        if self.bias is not None:
            normalised = normalised + self.bias.view(shape)
        return normalised.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor, n: float) -> None:
        """Moves the running statistics; the variance that they follow is the unbiased one."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (n / max(1.0, n - 1)), share)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks. Each rank's loss depends on it, so its gradient is summed as well."""
    summed: Tensor = _SumOverRanks.apply(tensor)  # type: ignore[no-untyped-call]  # torch types it not
    return summed


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient)
