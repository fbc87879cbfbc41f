"""Two ways to run the trainer: in this process, or as ranks under torch elastic."""

from __future__ import annotations

from pathlib import Path

import pytest
from scans import write_digits
from trainer_runs import MakeSpec, Ran, RunHere, new_spec, read_run, run_in_process, start_ranks

from shared.domain.events import TrainerSpec


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 100 scans."""
    return write_digits(tmp_path_factory.mktemp("digits"), 0, 100)


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 other scans: two ranks cannot share them out evenly."""
    return write_digits(tmp_path_factory.mktemp("held_out"), 100, 137)


@pytest.fixture
def make_spec(digits: Path) -> MakeSpec:
    return lambda model="custom_network", **changes: new_spec(model, digits, **changes)


@pytest.fixture
def run_here(tmp_path: Path) -> RunHere:
    """Trains in this process, as one rank."""

    return lambda spec, name="out": run_in_process(spec, tmp_path / name)


@pytest.fixture
def run_ranks(tmp_path: Path) -> RunHere:
    """Trains as ranks of their own under torch elastic, as a worker does."""

    def run(spec: TrainerSpec, name: str = "out") -> Ran:
        started = start_ranks(spec, tmp_path / name)
        output, _ = started.communicate(timeout=120)
        return read_run(tmp_path / name, started.returncode, output)

    return run
