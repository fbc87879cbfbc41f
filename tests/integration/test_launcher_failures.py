"""Runs that die, hang or take too long under the launcher: which error is told, and that none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from launched import Launch, eventually, launching, state_of
from listeners import LOOPBACK, swallowing

from shared.domain.job import Outcome
from worker.run_clock import read_ran_s

STACKS = """
from worker.training.stacks import leave_stacks_on_request
leave_stacks_on_request(rank, out)
"""
PULSE = """
from worker.training.pulse import Pulse
pulse = Pulse.of_rank(rank, out)
while not (out / "be-still").exists(): pulse.beat(); time.sleep(0.05)
"""
WAITS = "while True: time.sleep(0.05)"


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    with launching(tmp_path) as start:
        yield start


def test_a_peer_that_saw_the_connection_go_does_not_hide_the_rank_that_was_killed(launch: Launch) -> None:
    run = launch(
        """
        import signal
        mark(f"ready-{rank}")
        if rank == 1:
            while not (out / "ready-0").exists(): time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        error("peer_lost", 1.0)
        while True: time.sleep(0.05)
        """,
        batch="batch_size 64 (32 on each of 2 ranks)",
    )
    told = run.outcome()
    assert told.error is not None
    assert (told.outcome, told.error.code, told.error.rank) == (Outcome.LOST, "process_killed", 1)
    assert "SIGKILL" in told.error.message
    assert "batch_size 64" in told.error.message


@pytest.mark.slow
def test_a_real_error_that_came_first_is_not_hidden_by_the_end_of_the_others(launch: Launch) -> None:
    run = launch(
        """
        import signal
        if rank == 0:
            error("bad_data", time.time())
            sys.exit(1)
        while not (out / "error-rank0.json").exists(): time.sleep(0.01)
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGSEGV)
        """
    )
    told = run.outcome()
    assert told.error is not None
    assert (told.outcome, told.error.code, told.error.rank) == (Outcome.FAILED, "bad_data", 0)


@pytest.mark.slow
def test_a_crash_in_native_code_shows_where_python_stood(launch: Launch) -> None:
    run = launch(
        STACKS
        + """
import ctypes
def calls_into_nothing():
    ctypes.string_at(0)
calls_into_nothing()
""",
        ranks=1,
    )
    told = run.outcome()
    assert told.error is not None
    assert (told.outcome, told.error.code) == (Outcome.LOST, "process_crashed")
    assert "SIGSEGV" in told.error.message
    assert "calls_into_nothing" in (told.error.traceback or "")


def test_a_trainer_that_leaves_without_a_word_is_lost_with_the_end_of_its_log(launch: Launch) -> None:
    run = launch("print('my last words'); os._exit(3)", ranks=1)
    told = run.outcome()
    assert told.error is not None
    assert (told.outcome, told.error.code) == (Outcome.LOST, "trainer_ended")
    assert "my last words" in (told.error.traceback or "")


def test_ranks_that_get_no_further_are_ended_and_say_where_they_hang(launch: Launch) -> None:
    run = launch(
        STACKS
        + """
def waits_for_what_never_comes():
    while True: time.sleep(0.05)
mark(f"runs-{rank}")
"""
        + PULSE
        + "waits_for_what_never_comes()",
        stall_s=2.0,
    )
    eventually(lambda: (run.run / "runs-0").exists() and (run.run / "runs-1").exists())
    eventually(lambda: read_ran_s(run.run) > 4.0, what="it runs on for as long as there are signs of life")
    (run.run / "be-still").touch()
    told = run.outcome()
    assert told.error is not None
    assert (told.outcome, told.error.code) == (Outcome.LOST, "no_progress")
    assert "rank 0 stands in waits_for_what_never_comes, tiny_trainer.py" in told.error.message
    assert "rank 1 stands in waits_for_what_never_comes" in told.error.message
    assert (told.error.traceback or "").count("waits_for_what_never_comes") >= 2
    assert "waits_for_what_never_comes" in run.log()
    assert not run.left()


@pytest.mark.slow
def test_a_rank_that_somebody_stopped_is_named(launch: Launch) -> None:
    run = launch(STACKS + PULSE + WAITS, stall_s=2.0)
    eventually(lambda: len(list(run.run.glob("pulse-rank*"))) == 2, what="both run")
    os.kill(run.rank(1), signal.SIGSTOP)
    (run.run / "be-still").touch()
    told = run.outcome()
    assert told.error is not None
    assert (told.error.code, told.error.rank) == ("no_progress", 1)
    assert "rank 1 is stopped by a signal" in told.error.message
    assert not run.left()


def test_a_run_that_is_held_neither_stalls_nor_uses_up_its_time(launch: Launch) -> None:
    run = launch(PULSE, stall_s=2.0, kill_after_held_s=3.5)
    eventually(lambda: len(list(run.run.glob("pulse-rank*"))) == 2, what="both run")
    ranks = [run.rank(0), run.rank(1)]
    run.beat(age_s=31)
    eventually(lambda: [state_of(pid) for pid in ranks] == ["T", "T"], within_s=10, what="all are held")
    before = read_ran_s(run.run)
    told = run.outcome(within_s=30)
    assert told.error is not None
    assert told.error.code == "lease_lost", "held for longer than it may stall, and not ended for that"
    assert read_ran_s(run.run) <= before + 1.5


@pytest.mark.slow
def test_a_run_that_gets_further_is_left_alone_though_another_node_cannot_be_reached(launch: Launch) -> None:
    with swallowing() as port:
        peer = {"node": "node-0", "addresses": [LOOPBACK], "port": port}
        run = launch(PULSE + WAITS, peers=[peer], unreachable_s=2.0)
        eventually(lambda: len(list(run.run.glob("pulse-rank*"))) == 2, what="both run")
        began_s = read_ran_s(run.run)
        eventually(lambda: read_ran_s(run.run) > began_s + 4.0, what="it runs on")
        (run.run / "be-still").touch()
        told = run.outcome()
    assert told.error is not None
    assert told.error.code == "node_unreachable"


def test_a_run_that_cannot_reach_another_node_of_its_gang_is_ended_and_names_both(launch: Launch) -> None:
    with swallowing() as port:
        peer = {"node": "node-0", "addresses": [LOOPBACK], "port": port}
        run = launch(WAITS, ranks=1, node_name="node-1", peers=[peer], unreachable_s=1.0)
        told = run.outcome()
    assert told.error is not None
    assert (told.outcome, told.error.code) == (Outcome.LOST, "node_unreachable")
    assert "node-1 could not reach the node node-0" in told.error.message
    assert told.error.message in run.log()
    assert not run.left()


def test_the_time_limit_counts_what_earlier_tries_took(launch: Launch) -> None:
    run = launch(WAITS, ranks=1, max_duration_s=100.0, spent_s=98.0, overtime_s=1.0)
    told = run.outcome()
    assert told.error is not None
    assert (told.outcome, told.error.code) == (Outcome.FAILED, "time_limit")
    assert "max_duration_s, 100 s" in told.error.message


MEMORY = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A cgroup with 1 GB, in which this process stands until the test is over, where it may make one."""
    own = next((line.split(":", 2)[2] for line in cgroups() if ":memory:" in line), None)
    if own is None:
        pytest.skip("needs a memory controller of cgroup v1")
    home = MEMORY / own.lstrip("/") if (MEMORY / own.lstrip("/")).is_dir() else MEMORY
    group = home / f"thaw-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(2**30))
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        pytest.skip(f"needs a cgroup of its own: {error}")
    yield group
    (home / "cgroup.procs").write_text(str(os.getpid()))
    eventually(lambda: not (group / "cgroup.procs").read_text(), within_s=30)
    group.rmdir()


def cgroups() -> list[str]:
    return Path("/proc/self/cgroup").read_text().splitlines()


@pytest.mark.slow
def test_the_kernels_own_kill_for_memory_is_told_as_what_it_is(small_memory: Path, launch: Launch) -> None:
    assert small_memory.exists()
    run = launch(
        """
        hoard = []
        while True: hoard.append(bytearray(b"x") * 2**23)
        """,
        ranks=1,
        batch="batch_size 64",
    )
    told = run.outcome()
    assert told.error is not None
    assert (told.outcome, told.error.code) == (Outcome.LOST, "host_out_of_memory")
    assert "no memory was left" in told.error.message
    assert "batch_size 64" in told.error.message


def test_nothing_of_this_imports_torch() -> None:
    program = "import sys, worker.launcher; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
