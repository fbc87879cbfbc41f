"""A small network that takes its time, in whose ranks a witness writes down when they compute."""

from __future__ import annotations

import os
import time

from torch import Tensor, nn

from thaw_chaos_models.witness import attend


class SlowNetwork(nn.Module):
    """Batch normalisation makes the state depend on every step, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8 * 8 * 8, 10)
        self._pause_s = float(os.environ.get("CHAOS_STEP_S", "0"))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            time.sleep(self._pause_s)
        return self.fc(self.features(images).flatten(1))


def slow_network() -> nn.Module:
    attend()
    return SlowNetwork()


slow_network.head = "fc"
slow_network.image_size = (8, 8)
