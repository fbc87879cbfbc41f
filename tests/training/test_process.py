"""A trainer process dies with its parent and holds its slot for as long as it lives."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trainer_runs import wait_for

from worker.training.process import CannotStart, hold_slot

HOLD = """
import os, sys, time
from worker.training.process import prepare
prepare(os.environ)
open(sys.argv[1], "w").write(str(os.getpid()))
assert "torch" not in sys.modules
time.sleep(60)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"


def lock_is_free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_it_holds_its_slot_and_is_killed_when_its_parent_is(tmp_path: Path) -> None:
    locks = [tmp_path / "slot-0", tmp_path / "slot-1"]
    for lock in locks:
        lock.touch()
    started = tmp_path / "started"
    env = {**os.environ, "THAW_SLOT_LOCKS": ":".join(map(str, locks)), "LOCAL_RANK": "1"}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, HOLD, str(started)], env=env)
    wait_for(lambda: started.exists() and started.read_text() != "")
    assert [lock_is_free(lock) for lock in locks] == [True, False]

    parent.send_signal(signal.SIGKILL)
    parent.wait()

    wait_for(lambda: lock_is_free(locks[1]), limit_s=10)


def test_an_orphan_does_not_start(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        env = {**os.environ, "THAW_LAUNCHER_PID": str(stranger.pid)}
        done = subprocess.run(
            [sys.executable, "-m", "worker.training", "spec.json", str(tmp_path)],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        stranger.kill()
        stranger.wait()

    assert done.returncode == 1
    assert "does not descend from its launcher" in done.stderr


def test_a_slot_that_another_holds_alone_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.process.LOCK_WAIT_S", 0.1)
    lock = tmp_path / "slot"
    lock.touch()
    with lock.open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)

        with pytest.raises(CannotStart, match="held by another"):
            hold_slot(lock)
