"""Which numbers a run computes with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from worker.training.errors import TrainingFailed

Asked = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Precision:
    """The type that autocast uses, None for plain fp32, and why."""

    dtype: torch.dtype | None
    reason: str
    device_type: str

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(
            self.device_type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None
        )

    def scaler(self) -> torch.amp.GradScaler:
        """Does nothing unless the type is fp16, whose small gradients would vanish."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype is torch.float16)


def choose_precision(asked: Asked, device: torch.device) -> Precision:
    """Decides "auto"; refuses what the device lacks."""
    if asked == "auto":
        return _best_for(device)
    if asked == "fp16" and device.type == "cpu":
        raise TrainingFailed(
            "precision fp16 needs a CUDA device", code="unsupported_precision", hint="on CPU use fp32 or bf16"
        )
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[asked]
    return Precision(dtype, f"{asked}: asked for", device.type)


def _best_for(device: torch.device) -> Precision:
    if device.type == "cpu":
        return Precision(
            None, "fp32: autocast gains nothing on this CPU path, and fp32 is reproducible", "cpu"
        )
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision(torch.bfloat16, "bf16: this GPU computes with it", "cuda")
    return Precision(torch.float16, "fp16 with a gradient scaler: this GPU has no bf16", "cuda")
