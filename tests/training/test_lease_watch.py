"""A rank looks at its lease by itself: it computes nothing while that is not confirmed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from trainer_runs import MakeSpec, read_run, start_ranks, wait_for

from shared.domain.events import HEARTBEAT_FILE, Heartbeat
from shared.domain.run_signs import pulse_file
from worker.training.lease_watch import HOLD_AFTER, LeaseWatch

HOLD_AFTER_S = 30.0


def confirm(run: Path, age_s: float = 0.0) -> None:
    """A renewal that was sent `age_s` seconds ago."""
    sent = time.clock_gettime(time.CLOCK_BOOTTIME) - age_s
    partial = run / "heartbeat.partial"
    partial.write_text(Heartbeat(boottime_s=sent).model_dump_json())
    partial.rename(run / HEARTBEAT_FILE)


def test_ranks_take_no_step_until_the_lease_is_confirmed(
    tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    confirm(out, age_s=HOLD_AFTER_S + 1)
    monkeypatch.setenv(HOLD_AFTER, str(HOLD_AFTER_S))
    started = start_ranks(make_spec(world_size=2), out)

    wait_for(lambda: (out / pulse_file(1)).exists() and _phase(out) == "preflight")
    with pytest.raises(AssertionError):
        wait_for(lambda: _phase(out) != "preflight", limit_s=2.0)
    confirm(out)
    started.communicate(timeout=120)

    assert read_run(out, started.returncode).outcome.outcome == "succeeded"


def test_without_a_lease_nothing_is_waited_for(tmp_path: Path) -> None:
    LeaseWatch.of_run(tmp_path, {}).wait()


def _phase(out: Path) -> str | None:
    if not (out / "progress.jsonl").exists():
        return None
    phases = read_run(out).of_type("phase")
    return phases[-1].phase if phases else None
