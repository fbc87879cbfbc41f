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
from torch.nn.functional import interpolate

from thaw.errors import UsageError

PRESENT_FROM = 0.5


def _palette() -> list[int]:
    """Pascal VOC's colours of classes: the bits of a class's number, dealt out to red, green and blue."""
    return [
        sum((number >> (3 * place + channel) & 1) << (7 - place) for place in range(8))
        for number in range(256)
        for channel in range(3)
    ]


PALETTE = _palette()


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


@dataclass(frozen=True)
class Mask:
    """The number of each pixel's most probable class, uint8 [height, width] of the asked picture's own size.

    `shares` are the parts of the picture that each class takes; those that take none are left out.
    """

    classes: NDArray[np.uint8]
    shares: Mapping[str, float]

    suffix: ClassVar[str] = "-mask"

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {"shares": {name: round(share, 4) for name, share in self.shares.items()}}

    def cells(self) -> dict[str, Any]:
        """For a table: each column's name and what stands in it."""
        return {"shares": ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())}

    def save(self, path: Path) -> None:
        """As a PNG with a palette, whose values are the classes' numbers; else as `Picture.save`."""
        image = Image.fromarray(self.classes)
        image.putpalette(PALETTE)
        _save(image, path)


Answer = Prediction | Labels | Picture | Mask


def main_output(output: Any) -> Tensor:
    """The answers of a batch in what a network returned: torchvision's for segmentation give a dict."""
    answers: Tensor = output["out"] if isinstance(output, Mapping) else output
    return answers


def answer_of(card: Mapping[str, Any], asked: Tensor, output: Tensor, size: tuple[int, int]) -> Answer:
    """What the `output` for the normalised picture `asked` means; neither has a batch axis.

    `size` is the picture's own (height, width). Raises UsageError for an unknown task.
    """
    names: Sequence[str] = card["class_names"]
    match _task_of(card):
        case "classification":
            return _prediction(names, output.softmax(dim=0))
        case "multilabel":
            return _labels(names, output.sigmoid())
        case "reconstruction":
            return _picture(card["preprocessing"], asked, output)
        case "segmentation":
            return _mask(names, output, size)
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


def _mask(names: Sequence[str], scores: Tensor, size: tuple[int, int]) -> Mask:
    classes = scores.argmax(dim=0).to(torch.uint8)
    counts = torch.bincount(classes.flatten().long(), minlength=len(names)).tolist()
    shares = {name: count / classes.numel() for name, count in zip(names, counts, strict=True) if count}
    largest_first = dict(sorted(shares.items(), key=lambda item: -item[1]))
    in_own_size = interpolate(classes[None, None], size=size, mode="nearest-exact")[0, 0]
    return Mask(in_own_size.numpy(), largest_first)


def _save(image: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, "PNG")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}") from error
