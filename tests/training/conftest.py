"""Two ways to run the trainer: in this process, or as ranks under torch elastic."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scans import write_digits
from small_networks import NETWORKS
from step_networks import STEP_NETWORKS
from trainer_runs import MakeSpec, Ran, RunHere, new_spec, read_run, run_in_process, start_ranks

from shared.domain.events import TrainerSpec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 100 scans."""
    return write_digits(tmp_path_factory.mktemp("digits"), 0, 100)


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 other scans: two ranks cannot share them out evenly."""
    return write_digits(tmp_path_factory.mktemp("held_out"), 100, 137)


@pytest.fixture(scope="module", autouse=True)
def small_networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Offers the networks of `small_networks.py` and `step_networks.py` to this process and all it starts."""
    offered = tmp_path_factory.mktemp("offered")
    networks = {**NETWORKS, **STEP_NETWORKS}
    lines = [f"{name} = {network.__module__}:{network.__name__}" for name, network in networks.items()]
    package = offered / "small_networks-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: small_networks\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("\n".join(["[thaw.models]", *lines]))
    here = Path(__file__).parent
    found = [str(offered), str(here), str(here.parent.parent), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(offered)
        patched.setenv("PYTHONPATH", os.pathsep.join(filter(None, found)))
        yield


@pytest.fixture(scope="session")
def task_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples' data sets for tasks beside classification, as their program writes them."""
    folder = tmp_path_factory.mktemp("task-data")
    program = ROOT / "examples" / "task_digits.py"
    subprocess.run([sys.executable, str(program), str(folder)], check=True, capture_output=True)
    return folder


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
