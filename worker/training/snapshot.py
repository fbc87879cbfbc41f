"""Try a network without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from worker.training.generators import generators_put_back


@contextmanager
def left_untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts the model's buffers and the random generators back at the end."""
    held = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        with generators_put_back(device):
            yield
    finally:
        # Some models do not change a buffer but put another in its place.
        for names, buffers in held:
            names.update(buffers)
        with torch.no_grad():
            for buffer, saved in values:
                buffer.copy_(saved)
