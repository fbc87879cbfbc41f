"""Jobs under faults on a whole stack: no job is lost, done twice, or computed twice at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SEED = 1
LIMIT_S = 660


def run_harness(folder: Path, *words: str) -> str:
    """What `python -m harness` prints, once it has found that everything held."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "--keep", str(folder), *words],
        env={**os.environ, "PYTHONPATH": import_path()},
        stdout=subprocess.PIPE,
        timeout=LIMIT_S,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"see above, and {folder}:\n{done.stdout}"
    return done.stdout


def import_path() -> str:
    own = [str(path) for path in (ROOT, ROOT / "tests", ROOT / "tests" / "chaos")]
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.mark.timeout(LIMIT_S + 20)
def test_twelve_jobs_outlive_twenty_faults(tmp_path: Path) -> None:
    told = run_harness(
        tmp_path / "run", "--jobs", "12", "--faults", "20", "--seed", str(SEED), "--limit", "540"
    )

    cells = [cell.strip() for cell in told.splitlines()[2].split("|")]
    assert cells[1] == f"seed {SEED}"
    assert int(cells[4]) >= 15, f"too few faults found anything to hit:\n{told}"
