"""One real stack for the session, and real scans to train on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scans import write_digits
from stacks import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack with two CPU slots and leases a fifth as long. Tests share it and must not hurt it."""
    with running_stack(tmp_path_factory.mktemp("stack"), THAW_TIME_SCALE="0.2") as running:
        yield running


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 scans of handwritten digits, one folder a digit."""
    return write_digits(tmp_path_factory.mktemp("data") / "digits", 0, 240)
