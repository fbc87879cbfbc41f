"""Networks that tests offer to the trainer: small, and with what large ones have.

They import torch alone, so that a loop that knows nothing of Thaw can train them too.
"""

from __future__ import annotations

import os
import random

import numpy as np
import torch
from torch import Tensor, nn

HEIGHT = WIDTH = 16


class Block(nn.Module):
    """Two convolutions with batch normalisation, and the input added."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.down = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(features)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.down(features))


class Residual(nn.Module):
    """A stem, three blocks and a linear head, for 16x16 pictures."""

    head = "fc"
    image_size = (HEIGHT, WIDTH)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.layer1 = Block(8, 8)
        self.layer2 = Block(8, 16, stride=2)
        self.layer3 = Block(16, 16)
        self.fc = nn.Linear(16, 10)

    def features(self, pictures: Tensor) -> Tensor:
        low = torch.relu(self.bn(self.stem(pictures)))
        return self.layer3(self.layer2(self.layer1(low))).mean(dim=(2, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.fc(self.features(pictures))


class Drawing(Residual):
    """Draws from every generator there is while it trains: torch's, Python's and numpy's."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.2)

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.dropout(self.features(pictures))
        if self.training:
            features = features * (1 + 0.1 * random.gauss(0, 1)) + 0.1 * np.random.standard_normal()
        return self.fc(features)


class Sidelined(Drawing):
    """Has a second head, too, that takes no part in the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(16, 4)


class Failing(Residual):
    """Goes wrong in its eighth training step, on the last rank alone."""

    def forward(self, pictures: Tensor) -> Tensor:
        scores = super().forward(pictures)
        if self.training and int(self.bn.num_batches_tracked) == 8 and is_last_rank():
            return self.go_wrong(scores)
        return scores

    def go_wrong(self, scores: Tensor) -> Tensor:
        raise ValueError("the eighth step is one too many")


class Diverging(Failing):
    """Its scores are not a number there."""

    def go_wrong(self, scores: Tensor) -> Tensor:
        return scores * float("nan")


def is_last_rank() -> bool:
    return int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1


class Outliner(nn.Module):
    """Scores each pixel of 32x32 pictures, and as torchvision's networks do once more from half way."""

    head = ("classifier", "aux_classifier")
    image_size = (32, 32)
    task = "segmentation"

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Block(3, 8), Block(8, 16, stride=2))
        self.classifier = nn.Conv2d(16, 21, 3, padding=1)
        self.aux_classifier = nn.Conv2d(8, 21, 1)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        half_way = self.backbone[0](pictures)
        scores = self.classifier(self.backbone[1](half_way))
        large = nn.functional.interpolate(scores, pictures.shape[2:], mode="bilinear")
        return {"out": large, "aux": self.aux_classifier(half_way)}


NETWORKS = {
    "outliner": Outliner,
    "residual": Residual,
    "drawing": Drawing,
    "sidelined": Sidelined,
    "failing": Failing,
    "diverging": Diverging,
}
