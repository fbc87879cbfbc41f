"""`make demo` does what it says: five real jobs, and a summary that the artifacts bear out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 600
ON_TWO_RANKS = ("frozen-submodule", "even-odd-transfer")


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_demo_runs_its_five_jobs_and_its_summary_is_true(tmp_path: Path) -> None:
    demo = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout[-4000:] + demo.stderr[-4000:]
    jobs = {job["name"]: job for job in json.loads((tmp_path / "demo-result.json").read_text())["jobs"]}
    assert {job["status"] for job in jobs.values()} == {"succeeded"}
    assert jobs["base"]["accuracy"] > 0.95
    assert jobs["even-odd-transfer"]["accuracy"] > jobs["even-odd-untrained"]["accuracy"] + 0.1
    assert [name for name, job in jobs.items() if job["find_unused_parameters"]] == ["frozen-submodule"]
    frozen = {name: (job["frozen_parameters"], job["trainable_parameters"]) for name, job in jobs.items()}
    assert frozen["even-odd-transfer"] == (11_176_512, 1_026)
    assert frozen["frozen-by-name"] == (5_088, 32_010)
    assert frozen["frozen-submodule"] == (5_088, 12_509)
    for name, job in jobs.items():
        result = json.loads((tmp_path / job["artifacts"] / "result.json").read_text())
        assert result["frozen_proof"]["before"] == result["frozen_proof"]["after"]
        assert result["evaluation"]["accuracy"] == job["accuracy"]
        assert result["ranks"] == {**result["ranks"], "world_size": 1 + (name in ON_TWO_RANKS), "equal": True}
        assert (tmp_path / job["artifacts"] / "model.safetensors").stat().st_size > 0
    assert "What transfer brought" in demo.stdout
