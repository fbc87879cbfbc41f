"""A trainer process dies with its parent and holds its slot for as long as it lives."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trainer_runs import MakeSpec, free_port, read_run, wait_for

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


def test_a_rank_whose_peer_is_killed_says_so_and_not_that_the_job_was_wrong(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    spec = make_spec(world_size=2, hyperparameters={"n_epochs": 10_000})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    address = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "worker.training", str(tmp_path / "spec.json"), str(out)]
    ranks = [
        subprocess.Popen(command, env={**os.environ, **address, "RANK": str(n), "LOCAL_RANK": str(n)})
        for n in (0, 1)
    ]
    try:
        wait_for(lambda: any((out / "checkpoints").glob("step-*/manifest.json")))
        ranks[1].kill()
        ranks[0].wait(timeout=30)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()

    assert read_run(out).error["code"] == "peer_lost"


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


def test_a_line_is_written_at_once_also_where_python_runs_unbuffered() -> None:
    source = """
import os, sys
from worker.training.process import prepare
prepare(os.environ)
print("line", 1, "of", 2)
print("error", 3, file=sys.stderr)
print("no end", 4, end="")
"""
    read, write = os.pipe2(os.O_DIRECT)  # a read gives what one write brought
    subprocess.run([sys.executable, "-u", "-c", source], stdout=write, stderr=write, check=True)
    os.close(write)
    assert list(iter(lambda: os.read(read, 4096), b"")) == [b"line 1 of 2\n", b"error 3\n", b"no end 4"]
    os.close(read)
