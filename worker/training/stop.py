"""Step boundaries: where the ranks add up what they counted, and agree on what comes next."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from shared.domain.events import STOP_FILE, StopRequest
from shared.domain.job import StopReason
from worker.training.ranks import Ranks
from worker.training.time_limit import TimeLimit

# Reading a loss makes a GPU wait, so there the ranks meet every few steps only.
STEPS_BETWEEN = {"cpu": 1, "cuda": 8}
CHECKPOINT_EVERY_S = 300.0
REASONS = (StopReason.CANCEL, StopReason.DRAIN, StopReason.PREEMPT, StopReason.PAUSE)


@dataclass
class Sums:
    """What was counted over samples of all ranks."""

    loss: float = 0.0
    n: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        self.loss += other.loss
        self.n += other.n
        for name, value in other.figures.items():
            self.figures[name] = self.figures.get(name, 0.0) + value

    @property
    def mean_loss(self) -> float:
        return self.loss / max(1.0, self.n)

    @property
    def means(self) -> dict[str, float]:
        """The task's figures, averaged over samples."""
        return {name: value / max(1.0, self.n) for name, value in self.figures.items()}


@dataclass(frozen=True)
class BadLoss:
    """The first loss that was not finite, over all ranks. `step` counts from 1."""

    step: int
    value: float
    rank: int


@dataclass(frozen=True)
class Agreement:
    """The same on every rank."""

    sums: Sums
    stop: StopReason | None
    checkpoint_is_due: bool
    time_is_up: bool
    bad_loss: BadLoss | None = None


@dataclass
class Boundary:
    """Collects this rank's steps between two meetings."""

    ranks: Ranks
    stop_file: Path
    time_limit: TimeLimit
    _steps: list[tuple[int, Tensor, Mapping[str, Tensor], int]] = field(default_factory=list)
    _last_checkpoint: float = field(default_factory=time.monotonic)

    def count(self, step: int, loss: Tensor, counted: Mapping[str, Tensor], n: int) -> None:
        """`loss` is the mean over this rank's `n` samples of the step, `counted` are sums of the figures.

        Which figures there are is the same on every rank, and for all steps between two meetings.
        """
        self._steps.append((step, loss, counted, n))

    @property
    def is_due(self) -> bool:
        return len(self._steps) >= STEPS_BETWEEN[self.ranks.device.type]

    def checkpoint_was_written(self) -> None:
        self._last_checkpoint = time.monotonic()

    def meet(self) -> Agreement:
        """Adds up over all ranks and agrees: also on whether, and where first, a loss was not finite."""
        sums = self._own_sums()
        agreed = self.ranks.sum(
            torch.tensor([sums.loss, sums.n, *self._wishes(), *sums.figures.values()], dtype=torch.float64)
        )
        loss, n, checkpoint, time_up, *rest = agreed.tolist()
        stops, figures = rest[: len(REASONS)], rest[len(REASONS) :]
        bad = None if math.isfinite(loss) else self._first_bad_loss()
        self._steps.clear()
        return Agreement(
            bad_loss=bad,
            sums=Sums(loss, n, dict(zip(sums.figures, figures, strict=True))),
            stop=next((reason for reason, votes in zip(REASONS, stops, strict=True) if votes), None),
            checkpoint_is_due=bool(checkpoint),
            time_is_up=bool(time_up),
        )

    def _own_sums(self) -> Sums:
        if not self._steps:
            return Sums()
        _, losses, counted, counts = zip(*self._steps, strict=True)
        values = torch.stack(losses).double().tolist()
        loss = sum(value * n for value, n in zip(values, counts, strict=True))
        figures = {
            name: float(torch.stack([of_step[name] for of_step in counted]).sum()) for name in counted[0]
        }
        return Sums(loss, float(sum(counts)), figures)

    def _first_bad_loss(self) -> BadLoss:
        """Over all ranks. Every rank comes here, as the sum that they share is not finite."""
        own = ((step, float(loss)) for step, loss, _, _ in self._steps)
        first = next((found for found in own if not math.isfinite(found[1])), (math.inf, math.nan))
        every = self.ranks.gather(torch.tensor(first, dtype=torch.float64))
        rank = min(range(len(every)), key=lambda one: every[one][0].item())
        step, value = every[rank].tolist()
        return BadLoss(int(step), value, rank)

    def _wishes(self) -> list[float]:
        """Rank 0's clock decides for all; a stop is taken from whichever rank sees it."""
        now = time.monotonic()
        is_due = self.ranks.is_first and now - self._last_checkpoint > CHECKPOINT_EVERY_S
        is_up = self.ranks.is_first and self.time_limit.is_over()
        asked = read_stop(self.stop_file)
        return [float(is_due), float(is_up), *(float(asked is reason) for reason in REASONS)]


def read_stop(stop_file: Path) -> StopReason | None:
    """What stop.json asks for, None while there is none. It is written whole, so it is read whole."""
    try:
        return StopRequest.model_validate_json(stop_file.read_bytes()).reason
    except FileNotFoundError:
        return None


def stop_file_in(folder: Path) -> Path:
    return folder / STOP_FILE
