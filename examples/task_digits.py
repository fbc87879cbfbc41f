"""Data sets for tasks beside classification, put together from scikit-learn's handwritten digits.

FOLDER/pairs        multilabel: two places side by side, each empty or with a digit; the labels are the digits
FOLDER/more-pairs   the same from other scans, to test on
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from digits import Scan, shuffled_scans
from numpy.typing import NDArray
from PIL import Image

FOR_TRAINING = 1198
EMPTY = np.zeros((8, 8), dtype=np.uint8)
EMPTY_SHARE = 0.2
SIDE = 32
# How bright a scan's pixel is where it is no stroke any more, and from where on it is one for certain.
FAINT, BRIGHT = 64, 128
BACKGROUND, STROKE, NEITHER = 0, 1, 255


def write_task_data(folder: Path) -> list[Path]:
    """Write all of them, always in the same way."""
    scans = shuffled_scans()
    training, testing = scans[:FOR_TRAINING], scans[FOR_TRAINING:]
    return [
        write_pairs(folder / "pairs", training),
        write_pairs(folder / "more-pairs", testing),
        write_outlines(folder / "outlines", training[:300]),
        write_outlines(folder / "more-outlines", testing[:101]),
    ]


def write_pairs(folder: Path, scans: Sequence[Scan]) -> Path:
    """Pictures of 8x16 pixels beside a labels.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "labels"))
        for number, (pixels, labels) in enumerate(_pairs(scans)):
            Image.fromarray(pixels).save(folder / f"{number:04}.png")
            rows.writerow((f"{number:04}.png", ";".join(labels)))
    return folder


def write_outlines(folder: Path, scans: Sequence[Scan]) -> Path:
    """Pictures of 32x32 pixels in images/, their masks in masks/, beside a classes.txt."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("background\nstroke\n", encoding="utf-8")
    chance = np.random.default_rng(0)
    for scan in scans:
        picture, mask = _outline(scan, chance)
        Image.fromarray(picture).save(folder / "images" / f"{scan.number:04}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{scan.number:04}.png")
    return folder


def _outline(scan: Scan, chance: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The scan at twice its size on noise. Its grey rims are neither, and do not count."""
    large = scan.pixels.repeat(2, axis=0).repeat(2, axis=1)
    picture = chance.integers(0, FAINT, (SIDE, SIDE), dtype=np.uint8)
    mask = np.full((SIDE, SIDE), BACKGROUND, dtype=np.uint8)
    top, left = chance.integers(0, SIDE - len(large) + 1, 2)
    place = np.s_[top : top + len(large), left : left + len(large)]
    picture[place] = np.maximum(picture[place], large)
    mask[place] = np.select([large >= BRIGHT, large >= FAINT], [STROKE, NEITHER], BACKGROUND)
    return picture, mask


def _pairs(scans: Sequence[Scan]) -> Iterator[tuple[NDArray[np.uint8], list[str]]]:
    chance = random.Random(0)
    for pair in zip(scans[::2], scans[1::2], strict=False):
        shown = [chance.random() >= EMPTY_SHARE for _ in pair]
        places = [scan.pixels if is_shown else EMPTY for scan, is_shown in zip(pair, shown, strict=True)]
        labels = {str(scan.digit) for scan, is_shown in zip(pair, shown, strict=True) if is_shown}
        yield np.hstack(places), sorted(labels)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/task_digits.py FOLDER")
    for written in write_task_data(Path(sys.argv[1])):
        print(written)
