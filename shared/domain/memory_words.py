"""How the estimate of memory was made and what it leaves out, in words for whoever relies on it."""

from __future__ import annotations

from collections.abc import Mapping

from shared.domain.device import Device
from shared.domain.flow import Flow
from shared.domain.memory import CONTEXT_BYTES, Training

LEFT_OUT: Mapping[Device, str] = {
    "cuda": "fragmentation of the allocator; workspaces of cuDNN beyond the allowance; DDP's second copy of "
    "its buckets during the first step; the half-precision copy of the frozen layer that runs just now; what "
    "a registered model or its loss holds beside its steps",
    "cpu": "the data set, which the trainer keeps in memory where it has room; workspaces of oneDNN; copies "
    "of weights while a checkpoint is written; what a registered model or its loss holds beside its steps",
}


def method(flow: Flow | None, device: Device) -> str:
    """Where the numbers come from."""
    held = (
        "an estimate for one device: parameters and buffers, gradients and optimizer state of what trains "
        "(gradients once: with DDP they are its buckets), the batch"
    )
    allowance = f"and {CONTEXT_BYTES[device] // 2**20} MiB for the process"
    if flow is None:
        return f"{held}, {allowance}"
    size = "x".join(map(str, flow.image_size))
    return (
        f"{held}, the tensors that steps with backward keep, the largest passing need of a step, an "
        f"evaluation or an update, {allowance}; the steps were recorded in a forward of the network, "
        f"and are scaled to pictures of {size}, to batch and precision"
    )


def no_total(why_no_flow: str) -> str:
    """Why there is no total."""
    return f"how data flows through this network is not known, so neither are its activations: {why_no_flow}"


def precision(training: Training, device: Device) -> str:
    """What the numbers are computed in."""
    asked = training.hyperparameters.precision
    if asked != "auto":
        return asked
    return "bf16 or fp16" if training.is_half(device) else "fp32"
