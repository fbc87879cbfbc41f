"""A THAW_ variable that names no setting is refused where a process starts, with what was likely meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devstack.__main__ import main
from shared.setting_names import FOR_THE_CLIENT, unknown_names
from shared.settings import Settings

FIELDS = Settings.model_fields


def test_settings_the_client_s_variables_and_those_of_others_are_let_pass() -> None:
    ours = {f"THAW_{name.upper()}" for name in FIELDS} | {"thaw_slots"}
    assert unknown_names({*ours, *FOR_THE_CLIENT, "PATH", "THAWED", "POSTGRES_PASSWORD"}, FIELDS) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("THAW_LEASES_S", "THAW_LEASE_S"),
        ("THAW_DATABASE", "THAW_DATABASE_URL"),
        ("THAW_SWEEP_GRACE", "THAW_SWEEP_GRACE_S"),
        ("thaw_slot", "THAW_SLOTS"),
    ],
)
def test_another_name_is_told_with_the_setting_that_was_meant(written: str, meant: str) -> None:
    told = unknown_names({written, "THAW_SLOTS"}, FIELDS)
    assert told is not None
    assert told.startswith(f"the variable {written} names no setting")
    assert meant in told


def test_every_unknown_name_is_told_at_once() -> None:
    told = unknown_names({"THAW_B", "THAW_A"}, FIELDS) or ""
    assert told.index("THAW_A ") < told.index("THAW_B ")


def test_no_process_starts_with_a_misspelt_setting() -> None:
    needed = {f"THAW_{name}": "redis://unused" for name in ("DATABASE_URL", "REDIS_URL", "STORE_URL")}
    done = subprocess.run(
        [sys.executable, "-m", "scheduler"],
        env={**os.environ, **needed, "THAW_LEASES_S": "5"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("the variable THAW_LEASES_S names no setting")
    assert "THAW_LEASE_S" in done.stderr


def test_the_stack_says_so_before_it_starts_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("THAW_SLOT", "2")
    assert main(["--data-dir", str(tmp_path / "stack")]) == 2
    assert "THAW_SLOT names no setting" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
