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


def write_task_data(folder: Path) -> list[Path]:
    """Write all of them, always in the same way."""
    scans = shuffled_scans()
    training, testing = scans[:FOR_TRAINING], scans[FOR_TRAINING:]
    return [write_pairs(folder / "pairs", training), write_pairs(folder / "more-pairs", testing)]


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
