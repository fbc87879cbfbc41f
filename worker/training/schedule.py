"""The learning rate of each step of the whole run. It depends on the step alone, so it needs no state."""

from __future__ import annotations

import math
from typing import Literal

from shared.domain.spec import ResolvedHyperparameters


def learning_rate(settings: ResolvedHyperparameters, step: int, total_steps: int) -> float:
    """The rate at `step` of the whole run, counted from 0, where no scale applies."""
    factor = learning_rate_factor(step, total_steps, settings.warmup_steps, settings.lr_schedule)
    return settings.learning_rate * factor


def learning_rate_factor(
    step: int, total_steps: int, warmup_steps: int, shape: Literal["cosine", "constant"]
) -> float:
    """What the base learning rate is multiplied with at `step`, counted from 0.

    It rises in a line to 1 over `warmup_steps`; then it stays (constant), or falls to 0 along half a cosine.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if shape == "constant":
        return 1.0
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
