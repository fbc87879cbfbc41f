"""From the bytes of a mask to the class of each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from worker.training.images import Unreadable, check_size, in_words
from worker.training.stored import StoredPictures

# Pixels of this value count neither in training nor in evaluation.
IGNORED = 255
# Pillow stretches greys of 2 and 4 bits to eight, so that a class's number would not be its value any more.
_STRETCHED = ("L;2", "L;4")


@dataclass(frozen=True)
class Masks:
    """A mask for each picture, in the pictures' order."""

    stored: StoredPictures
    n_classes: int

    def decode(self, index: int, size: tuple[int, int]) -> Tensor:
        """uint8 [1, height, width]. Raises Unreadable, naming the mask; `size` is that of its picture."""
        try:
            mask = decode_mask(self.stored.read(index), self.n_classes)
            if mask.shape[1:] != size:
                raise Unreadable(f"it has {_size(mask.shape[1:])} pixels and its picture {_size(size)}")
        except Unreadable as error:
            raise Unreadable(f"its mask {self.stored.name(index)}: {error}") from error
        return mask


def decode_mask(content: bytes, n_classes: int) -> Tensor:
    """The number of each pixel's class, or IGNORED: uint8 [1, height, width]. Raises Unreadable."""
    values = _values(content)
    wrong = values[(values >= n_classes) & (values != IGNORED) | (values < 0)]
    if wrong.size:
        raise Unreadable(
            f"it holds the value {wrong.min()}; the classes are 0 to {n_classes - 1}, "
            f"and {IGNORED} is for pixels that do not count"
        )
    return torch.from_numpy(values.astype(np.uint8)).unsqueeze(0)


def _values(content: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as mask:
            check_size(*mask.size)
            if mask.tile and str(mask.tile[0][-1]) in _STRETCHED:
                raise Unreadable("its greys have fewer than 8 bits; save it with 8")
            if len(mask.getbands()) != 1:
                raise Unreadable(f"it has {len(mask.getbands())} channels ({mask.mode}); a mask has one")
            return np.array(mask).astype(np.int32)
    except Unreadable:
        raise
    except Exception as error:  # broken files make Pillow's plugins raise nearly anything
        raise Unreadable(in_words(error)) from error


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
