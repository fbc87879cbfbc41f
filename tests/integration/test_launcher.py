"""The launcher with real processes under torch elastic: how runs end, hold and stop; none is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from launched import SOURCES, Launch, eventually, launching, marked, prepare_run, state_of

from shared.domain.job import Outcome, StopReason
from worker.slots import try_exclusive

WAITS = "while True: time.sleep(0.05)"
# As a careless model would: a child of its own, in a session of its own, deaf to SIGTERM.
WITH_STRAY = """
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
mark(f"stray-{rank}")
while True: time.sleep(0.05)
"""


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    with launching(tmp_path) as start:
        yield start


def test_a_run_that_succeeds(launch: Launch) -> None:
    source = """
    for number in range(300): print("line", number, "of", rank)
    if rank == 0: outcome("succeeded")
    """
    run = launch(source)
    assert run.outcome().outcome is Outcome.SUCCEEDED
    assert run.process.returncode == 0
    lines = {f"line {number} of {rank}" for number in range(300) for rank in range(2)}
    assert lines <= set(run.log().splitlines()), "lines of the ranks are mixed"
    assert all(try_exclusive(Path(path)) for path in run.plan.slot_locks)


def test_the_trainers_environment_is_an_allow_list(launch: Launch) -> None:
    secrets = {"THAW_DATABASE_URL": "postgresql://x", "AWS_SECRET_ACCESS_KEY": "x", "LD_PRELOAD_TOKEN": "x"}
    run = launch(
        "mark('env', json.dumps(dict(os.environ))); outcome('succeeded')",
        ranks=1,
        environment={**secrets, "NCCL_DEBUG": "WARN", "GLOO_SOCKET_IFNAME": "lo", "LANG": "C.UTF-8"},
        visible_devices="3",
        threads_per_rank=7,
    )
    run.outcome()
    seen = json.loads((run.run / "env").read_text())
    assert not secrets.keys() & seen.keys()
    assert (seen["NCCL_DEBUG"], seen["GLOO_SOCKET_IFNAME"], seen["LANG"]) == ("WARN", "lo", "C.UTF-8")
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["OMP_NUM_THREADS"]) == ("3", "7")
    assert (seen["TINY_MARKER"], seen["MASTER_ADDR"]) == (run.marker, "127.0.0.1")
    ours = {name for name in seen if name.startswith("THAW_")}
    assert ours == {"THAW_LAUNCHER_PID", "THAW_SLOT_LOCKS", "THAW_HOLD_AFTER_S"}


def test_the_earliest_real_error_fails_the_run(launch: Launch) -> None:
    run = launch(
        """
        error("peer_lost", 100.0) if rank == 0 else error("bad_data", 200.0)
        sys.exit(1)
        """
    )
    told = run.outcome()
    assert told.outcome is Outcome.FAILED
    assert told.error is not None
    assert (told.error.code, told.error.message, told.error.rank) == ("bad_data", "rank 1 says bad_data", 1)


def test_lost_peers_alone_are_a_lost_run(launch: Launch) -> None:
    run = launch("error('peer_lost', 100.0 - rank); sys.exit(1)")
    told = run.outcome()
    assert told.outcome is Outcome.LOST
    assert told.error is not None
    assert (told.error.code, told.error.rank) == ("peer_lost", 1)


def test_a_rank_killed_by_a_signal_is_a_lost_run_and_takes_its_peers_along(launch: Launch) -> None:
    run = launch(WAITS)
    run.rank(0)
    os.kill(run.rank(1), signal.SIGKILL)
    told = run.outcome()
    assert told.outcome is Outcome.LOST
    assert told.error is not None
    assert (told.error.code, told.error.rank) == ("process_killed", 1)
    assert "rank 1 was killed by SIGKILL" in told.error.message
    assert not run.left()


@pytest.mark.parametrize("victim", ["launcher", "agent"])
def test_killing_any_process_leaves_none(launch: Launch, victim: str) -> None:
    run = launch(WITH_STRAY if victim == "agent" else WAITS)
    run.rank(0), run.rank(1)
    if victim == "agent":
        eventually(lambda: (run.run / "stray-0").exists() and (run.run / "stray-1").exists())
    assert not try_exclusive(Path(run.plan.slot_locks[1])), "a rank holds its slot"
    os.kill(run.process.pid if victim == "launcher" else run.agent, signal.SIGKILL)
    eventually(lambda: not run.left(), within_s=10, what="no process is left")
    run.process.wait(10)
    assert all(try_exclusive(Path(path)) for path in run.plan.slot_locks)
    if victim == "agent":
        assert run.outcome().outcome is Outcome.LOST


def test_the_supervisors_death_ends_everything(tmp_path: Path) -> None:
    marker = uuid.uuid4().hex
    plan = prepare_run(tmp_path / "run", WITH_STRAY, marker)
    program = (
        "import sys, time; from pathlib import Path; import launched; from worker.launch import LaunchPlan\n"
        "run = Path(sys.argv[1]); plan = LaunchPlan.model_validate_json((run / 'launch.json').read_bytes())\n"
        "launched.start_launcher(run, plan, sys.argv[2]); time.sleep(600)"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "run", marker],
        env={**os.environ, "PYTHONPATH": f"{SOURCES}:{Path(__file__).parent}"},
    )
    eventually((tmp_path / "run" / "stray-1").exists, what="the ranks run")
    supervisor.kill()
    supervisor.wait()
    eventually(lambda: not marked(marker), within_s=10, what="no process is left")
    eventually(lambda: all(try_exclusive(Path(path)) for path in plan.slot_locks), within_s=10)


def test_a_stale_heartbeat_holds_the_ranks_and_a_fresh_one_wakes_them(launch: Launch) -> None:
    run = launch(
        """
        count = 0
        while not (out / "leave").exists():
            count += 1; mark(f"count-{rank}", str(count)); time.sleep(0.02)
        outcome("succeeded")
        """
    )
    ranks = [run.rank(0), run.rank(1)]
    run.beat(age_s=31)
    eventually(
        lambda: [state_of(pid) for pid in (*ranks, run.agent)] == ["T"] * 3, within_s=10, what="all are held"
    )
    before = (run.run / "count-0").read_text()
    run.beat()
    eventually(lambda: "T" not in [state_of(pid) for pid in ranks], within_s=10, what="all are awake")
    eventually(lambda: (run.run / "count-0").read_text() != before, within_s=10, what="it counts on")
    (run.run / "leave").touch()
    assert run.outcome().outcome is Outcome.SUCCEEDED
    assert "held: " in run.log()
    assert "woken: " in run.log()


def test_a_held_rank_that_somebody_else_wakes_is_held_again(launch: Launch) -> None:
    run = launch(WAITS)
    # Both: one that is held before it is bound to its parent outlives a launcher that this test kills.
    rank, _ = run.rank(0), run.rank(1)
    run.beat(age_s=31)
    eventually(lambda: state_of(rank) == "T", within_s=10, what="the rank is held")

    os.kill(rank, signal.SIGCONT)

    eventually(lambda: state_of(rank) == "T", within_s=10, what="the rank is held again")


def test_a_run_that_is_held_for_too_long_is_killed(launch: Launch) -> None:
    run = launch(WAITS, hold_after_s=20.0, kill_after_held_s=0.5)
    run.rank(0), run.rank(1)
    run.beat(age_s=21)
    told = run.outcome(within_s=20)
    assert told.outcome is Outcome.LOST
    assert told.error is not None
    assert told.error.code == "lease_lost"
    assert not run.left()


def test_ranks_that_do_not_leave_within_the_grace_are_killed(launch: Launch) -> None:
    run = launch(WITH_STRAY)
    eventually(lambda: (run.run / "stray-0").exists() and (run.run / "stray-1").exists())
    run.ask_to_stop("cancel", grace_s=0.5)
    told = run.outcome(within_s=20)
    assert (told.outcome, told.reason) == (Outcome.STOPPED, StopReason.CANCEL)
    assert told.error is not None
    assert told.error.message == "it did not leave within 0.5 s and was killed"
    assert not run.left()


def test_terminated_the_launcher_kills_and_says_fenced(launch: Launch) -> None:
    run = launch(WITH_STRAY, ranks=1)
    eventually((run.run / "stray-0").exists)
    run.process.terminate()
    told = run.outcome(within_s=20)
    assert told.error is not None
    assert (told.outcome, told.error.code) == (Outcome.LOST, "fenced")
    assert not run.left()


def test_the_log_keeps_its_end_within_its_cap(launch: Launch) -> None:
    run = launch("for n in range(40000): print('line', n)\nmark('done')\noutcome('succeeded')", ranks=1)
    assert run.outcome().outcome is Outcome.SUCCEEDED
    log = run.log()
    assert len(log) <= run.plan.log_bytes
    assert "earlier lines were dropped" in log.splitlines()[0]
    assert "line 39999" in log.splitlines()


def test_the_launcher_imports_no_torch() -> None:
    program = "import sys, worker.launcher; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=SOURCES, check=False).returncode == 0
