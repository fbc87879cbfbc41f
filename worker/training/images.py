"""From the bytes of a picture to pixels: decoding within a cap, and resizing."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

# A picture beyond this is refused before its pixels are unpacked.
MAX_PIXELS = 64_000_000
# Whatever its name says: one of Pillow's other formats would run a program, Ghostscript, on the content.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")

Pixels = NDArray[np.uint8]


class Unreadable(Exception):
    """A picture that cannot be decoded, or is too large to be."""


class BadSample(Exception):
    """A sample that could be read when the data set was looked through, and cannot any more.

    One that comes out of a process that loads data holds that process's whole traceback as its text.
    """

    code = "bad_data"

    @property
    def in_words(self) -> str:
        last = (str(self).strip().splitlines() or [""])[-1]
        return last.removeprefix(f"{type(self).__module__}.{type(self).__name__}: ")


class ReadFailed(BadSample):
    """The node could not read a sample from its own disk."""

    code = "read_failed"


def decode(content: bytes) -> Tensor:
    """The picture in its own size as RGB, without alpha: uint8 [3, height, width]. Raises Unreadable."""
    if not content:
        raise Unreadable("the file is empty")
    pixels = _decode_jpeg(content) if content[:2] == b"\xff\xd8" else None
    if pixels is None:
        pixels = _decode_with_pillow(content)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def resized(picture: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with antialiasing, as torchvision's transforms v2 resize; the aspect is not kept.

    A fourth layer is a mask: each of its pixels becomes the nearest one's.
    """
    if picture.shape[1:] == (height, width):
        return picture.contiguous()
    size, layers = (height, width), picture.unsqueeze(0)
    smooth = interpolate(layers[:, :3], size=size, mode="bilinear", antialias=True)
    if len(picture) == 3:
        return smooth.squeeze(0).contiguous()
    return torch.cat([smooth, interpolate(layers[:, 3:], size=size, mode="nearest-exact")], dim=1).squeeze(0)


def _decode_jpeg(content: bytes) -> Pixels | None:
    """None where the fast decoder cannot: Pillow knows more kinds of JPEG."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(content)
        check_size(width, height)
        pixels: Pixels = simplejpeg.decode_jpeg(content, "RGB")
    except ValueError:
        return None
    return pixels


def _decode_with_pillow(content: bytes) -> Pixels:
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as picture:
            check_size(*picture.size)
            return np.array(_eight_bit(picture).convert("RGB"))
    except Unreadable:
        raise
    except Exception as error:  # broken files make Pillow's plugins raise nearly anything
        raise Unreadable(in_words(error)) from error


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Sixteen-bit greys scaled to eight: Pillow's own conversion cuts them off at 255."""
    if picture.mode == "F":
        raise Unreadable("its values are floating-point numbers without a known range; save it as 8 bit")
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.array(picture).clip(0, 65_535) >> 8).astype(np.uint8))


def check_size(width: int, height: int) -> None:
    """Raises Unreadable beyond the cap."""
    if width * height > MAX_PIXELS:
        raise Unreadable(f"{width}x{height} pixels are more than the cap of {MAX_PIXELS:,}")


def in_words(error: Exception) -> str:
    """What Pillow raised, for the person whose picture it is."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "no known picture format"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
