"""Try a network without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def left_untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts the model's buffers and the random generators back at the end."""
    held = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    cpu_state = torch.get_rng_state()
    cuda_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        # Some models do not change a buffer but put another in its place.
        for names, buffers in held:
            names.update(buffers)
        with torch.no_grad():
            for buffer, saved in values:
                buffer.copy_(saved)
        torch.set_rng_state(cpu_state)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state, device)
