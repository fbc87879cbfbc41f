"""scikit-learn's handwritten digits, 1,797 real scans of 8x8 pixels, as one folder of PNG a class."""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

FOR_THE_BASE = 900
LABELLED_OF_EACH_DIGIT = 6
WHITE = 16


@dataclass(frozen=True)
class Scan:
    """One scan, its place in the data set, and the digit that it shows."""

    number: int
    digit: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class DataSets:
    """Folders of class folders. `digits`, `few` and `rest` share no scan."""

    digits: Path  # 900 scans, ten digits
    few: Path  # 60 scans, even or odd
    rest: Path  # all others, ten digits
    rest_even_odd: Path  # the same others, even or odd

    def by_name(self) -> dict[str, Path]:
        """Each folder by its name above."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def write_data_sets(folder: Path) -> DataSets:
    """Split the scans, always in the same way, and write them out."""
    scans = shuffled_scans()
    digits, others = scans[:FOR_THE_BASE], scans[FOR_THE_BASE:]
    few = _first_of_each_digit(others, LABELLED_OF_EACH_DIGIT)
    taken = {scan.number for scan in few}
    rest = [scan for scan in others if scan.number not in taken]
    return DataSets(
        digits=_write(folder / "digits", digits, _digit),
        few=_write(folder / "few-even-odd", few, _even_or_odd),
        rest=_write(folder / "rest-digits", rest, _digit),
        rest_even_odd=_write(folder / "rest-even-odd", rest, _even_or_odd),
    )


def count(folder: Path) -> int:
    """How many scans a data set holds."""
    return sum(1 for _ in folder.rglob("*.png"))


def shuffled_scans() -> list[Scan]:
    found = load_digits()
    pixels = (found.images * (255 / WHITE)).round().astype(np.uint8)
    scans = [Scan(number, int(digit), pixels[number]) for number, digit in enumerate(found.target)]
    random.Random(0).shuffle(scans)
    return scans


def _first_of_each_digit(scans: Iterable[Scan], n: int) -> list[Scan]:
    taken: dict[int, list[Scan]] = defaultdict(list)
    for scan in scans:
        if len(taken[scan.digit]) < n:
            taken[scan.digit].append(scan)
    return [scan for of_one_digit in taken.values() for scan in of_one_digit]


def _digit(scan: Scan) -> str:
    return str(scan.digit)


def _even_or_odd(scan: Scan) -> str:
    return "odd" if scan.digit % 2 else "even"


def _write(folder: Path, scans: Iterable[Scan], class_of: Callable[[Scan], str]) -> Path:
    for scan in scans:
        path = folder / class_of(scan) / f"{scan.number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scan.pixels).save(path)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/digits.py FOLDER")
    for written in write_data_sets(Path(sys.argv[1])).by_name().values():
        print(f"{written}: {count(written)} scans")
