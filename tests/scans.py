"""Real pictures for tests: scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

CLASSES = [str(digit) for digit in range(10)]


def write_digits(folder: Path, first: int, last: int, classes: list[str] = CLASSES) -> Path:
    """scikit-learn's scans `first` to `last` as PNG files in class folders."""
    digits = load_digits()
    for index in range(first, last):
        name = str(digits.target[index])
        if name in classes:
            path = folder / name / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[index] * 15.9).astype(np.uint8)).save(path)
    return folder
