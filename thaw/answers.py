"""What a model says of a picture, in the terms of the task that it was trained for.

Every answer has `as_data` for JSON and `cells` for a row of a table. One that holds a picture can `save` it,
by custom under the asked picture's name with `suffix` behind it; `suffix` is None for the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from thaw.errors import UsageError

PRESENT_FROM = 0.5


@dataclass(frozen=True)
class Prediction:
    """The most probable class, its probability, and every class's."""

    label: str
    probability: float
    probabilities: Mapping[str, float]

    suffix: ClassVar[None] = None

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {"class": self.label, "probability": round(self.probability, 4)}

    def cells(self) -> dict[str, Any]:
        """For a table: each column's name and what stands in it."""
        return self.as_data()


@dataclass(frozen=True)
class Labels:
    """The labels whose probability is 0.5 or more, the most probable first, and every label's probability."""

    labels: tuple[str, ...]
    probabilities: Mapping[str, float]

    suffix: ClassVar[None] = None

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        rounded = {name: round(value, 4) for name, value in self.probabilities.items()}
        return {"labels": list(self.labels), "probabilities": rounded}

    def cells(self) -> dict[str, Any]:
        """For a table: each column's name and what stands in it."""
        return {"labels": ", ".join(f"{name} {self.probabilities[name]:.2f}" for name in self.labels)}


@dataclass(frozen=True)
class Picture:
    """The picture as the model makes it anew, uint8 [height, width, 3], and how near it is.

    `psnr_db` is 10 log10(1 / mean squared error) over pixels from 0 to 1; None where there is no error.
    """

    pixels: NDArray[np.uint8]
    psnr_db: float | None

    suffix: ClassVar[str] = "-reconstructed"

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {"psnr_db": None if self.psnr_db is None else round(self.psnr_db, 2)}

    def cells(self) -> dict[str, Any]:
        """For a table: each column's name and what stands in it."""
        return {"psnr": "exact" if self.psnr_db is None else f"{self.psnr_db:.2f} dB"}

    def save(self, path: Path) -> None:
        """As a PNG, written anew where there is one; its folder is made if need be. Raises UsageError."""
        _save(Image.fromarray(self.pixels), path)


Answer = Prediction | Labels | Picture


def answer_of(card: Mapping[str, Any], asked: Tensor, output: Tensor) -> Answer:
    """What the `output` for the normalised picture `asked` means; neither has a batch axis.

    Raises UsageError for an unknown task.
    """
    names: Sequence[str] = card["class_names"]
    match _task_of(card):
        case "classification":
            return _prediction(names, output.softmax(dim=0))
        case "multilabel":
            return _labels(names, output.sigmoid())
        case "reconstruction":
            return _picture(card["preprocessing"], asked, output)
    raise UsageError(f"a model for {_task_of(card)!r} is newer than this thaw; install the server's version")


def _task_of(card: Mapping[str, Any]) -> str:
    """A card from before there were several tasks does not say."""
    return str(card.get("task", "classification"))


def _prediction(names: Sequence[str], probabilities: Tensor) -> Prediction:
    by_name = dict(zip(names, probabilities.tolist(), strict=True))
    label = max(by_name, key=by_name.__getitem__)
    return Prediction(label, by_name[label], by_name)


def _labels(names: Sequence[str], probabilities: Tensor) -> Labels:
    by_name = dict(zip(names, probabilities.tolist(), strict=True))
    present = [name for name, probability in by_name.items() if probability >= PRESENT_FROM]
    return Labels(tuple(sorted(present, key=by_name.__getitem__, reverse=True)), by_name)


def _picture(preprocessing: Mapping[str, Any], asked: Tensor, output: Tensor) -> Picture:
    mean, std = (torch.tensor(preprocessing[name]).view(3, 1, 1) for name in ("mean", "std"))
    error = ((output - asked) * std).square().mean().item()
    pixels = ((output * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return Picture(pixels.permute(1, 2, 0).numpy(), -10 * math.log10(error) if error else None)


def _save(image: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, "PNG")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}") from error
