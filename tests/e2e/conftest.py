"""One real stack for the session, and real scans to train on."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from stack import Stack, running_stack

N_SCANS = 240


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack with two CPU slots and leases a fifth as long. Tests share it and must not hurt it."""
    with running_stack(tmp_path_factory.mktemp("stack"), time_scale=0.2) as running:
        yield running


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 scans of handwritten digits, one folder a digit."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    found = load_digits()
    for number in range(N_SCANS):
        path = folder / str(found.target[number]) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((found.images[number] * (255 / 16)).round().astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="session")
def digits_zip(digits_folder: Path) -> Path:
    """The same scans as a zip."""
    archive = digits_folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(digits_folder.rglob("*.png")):
            out.write(path, path.relative_to(digits_folder))
    return archive
