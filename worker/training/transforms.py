"""Pixels to the model's input: augmentation by (seed, epoch, sample) alone, and normalisation.

Because no augmentation draws from a shared generator, a run that was resumed sees the same pictures, whatever
the number of ranks and loading processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shared.domain.resolved import ResolvedPreprocessing
from worker.training.images import resized
from worker.training.pictures import Pictures
from worker.training.sampling import mixed_seed

CROP_AREA = (0.6, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Augmentation:
    """What training sees of a picture in one epoch."""

    kind: Literal["none", "flip", "crop_flip"]
    seed: int

    @property
    def keeps_size(self) -> bool:
        """Whether it can work on pictures that were already brought to the model's size."""
        return self.kind != "crop_flip"

    def batch(self, pictures: Pictures, indices: Sequence[int], epoch: int) -> Tensor:
        """uint8 [batch, layers, height, width]: a mask is cut and mirrored together with its picture."""
        if self.kind == "none":
            return pictures.batch(indices)
        draws = torch.stack([self._draws(epoch, index) for index in indices])
        if self.kind == "flip":
            batch = pictures.batch(indices)
        else:
            size = (pictures.height, pictures.width)
            cropped = [_crop(pictures.in_own_size(i), draw) for i, draw in zip(indices, draws, strict=True)]
            batch = torch.stack([resized(picture, *size) for picture in cropped])
        is_mirrored = draws[:, 0] < 0.5
        return torch.where(is_mirrored[:, None, None, None], batch.flip(-1), batch)

    def _draws(self, epoch: int, index: int) -> Tensor:
        """Five numbers in [0, 1): mirrored or not, then area, aspect, top and left of the part."""
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch, index))
        return torch.rand(5, generator=generator)


def _crop(picture: Tensor, draws: Tensor) -> Tensor:
    _, height, width = picture.shape
    _, area, aspect, top, left = draws.tolist()
    share = CROP_AREA[0] + area * (CROP_AREA[1] - CROP_AREA[0])
    stretch = math.exp(math.log(CROP_ASPECT[0]) + aspect * math.log(CROP_ASPECT[1] / CROP_ASPECT[0]))
    h = max(1, min(height, round(height * math.sqrt(share / stretch))))
    w = max(1, min(width, round(width * math.sqrt(share * stretch))))
    y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
    return picture[:, y : y + h, x : x + w]


class Normalize:
    """uint8 pixels to floats: scaled to 0..1, then (pixel - mean) / std by channel."""

    def __init__(self, preprocessing: ResolvedPreprocessing, device: torch.device) -> None:
        mean = torch.tensor(preprocessing.mean, dtype=torch.float32)
        std = torch.tensor(preprocessing.std, dtype=torch.float32)
        self._scale = (1 / (255 * std)).view(1, 3, 1, 1).to(device)
        self._shift = (-mean / std).view(1, 3, 1, 1).to(device)
        self._device = device

    def __call__(self, pixels: Tensor) -> Tensor:
        on_device = pixels.to(self._device, non_blocking=True)
        return torch.addcmul(self._shift, on_device.float(), self._scale)
