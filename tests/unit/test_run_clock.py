"""How long a run has run, and when it has stalled: times are handed in."""

from __future__ import annotations

from pathlib import Path

from worker.memory_kills import memory_kills
from worker.run_clock import RanClock, StallRule, read_ran_s


def test_time_in_which_the_run_is_held_is_left_out() -> None:
    clock = RanClock(started=100.0)
    for now in (101.0, 102.0):
        clock.tick(now, held=False)
    for now in (103.0, 104.0, 105.0):
        clock.tick(now, held=True)
    clock.tick(106.0, held=False)
    assert clock.ran_s == 3.0


def test_a_launcher_that_was_itself_stopped_charges_nobody_for_it() -> None:
    clock = RanClock(started=0.0)
    clock.tick(3_600.0, held=False)
    assert clock.ran_s <= 5.0


def test_the_clock_is_told_about_once_a_second(tmp_path: Path) -> None:
    clock = RanClock(started=0.0)
    assert read_ran_s(tmp_path) == 0.0
    told = []
    for tenth in range(1, 31):
        clock.tick(tenth / 10, held=False)
        if clock.tell(tmp_path):
            told.append(read_ran_s(tmp_path))
    assert len(told) in (2, 3)
    assert told[-1] == clock.ran_s or clock.ran_s - told[-1] < 1.1


def test_a_run_has_stalled_when_its_signs_of_life_stay_the_same() -> None:
    rule = StallRule(stall_s=10.0)
    assert not rule.is_stalled(0.0, "first")
    assert not rule.is_stalled(10.0, "first")
    assert not rule.is_stalled(10.5, "second"), "a new sign starts the count anew"
    assert not rule.is_stalled(20.0, "second")
    assert rule.is_stalled(20.6, "second")


def test_how_long_a_run_has_stood_still_is_told_also_without_a_limit() -> None:
    rule = StallRule(stall_s=None)
    assert [rule.still_s(ran_s, sign) for ran_s, sign in ((2.0, ()), (5.0, "first"), (9.0, "first"))] == [
        2,
        0,
        4,
    ]


def test_a_start_gets_its_time_whatever_the_scale() -> None:
    rule = StallRule(stall_s=10.0, start_s=60.0)
    assert not rule.is_stalled(59.0, ())
    assert not rule.is_stalled(59.5, ("pulse",))
    assert rule.is_stalled(70.0, ("pulse",))
    assert StallRule(stall_s=10.0, start_s=60.0).is_stalled(61.0, ())


def test_without_a_limit_no_run_has_stalled() -> None:
    assert not StallRule(stall_s=None).is_stalled(1e9, ())


V2, V1 = "0::/jobs/one\n", "5:cpu:/\n4:memory:/jobs/one\n"


def host(folder: Path, cgroup: str, counts: dict[str, int]) -> tuple[Path, Path]:
    """/proc and /sys/fs/cgroup of a host; `counts` are of the files that can be read there."""
    proc, cgroups = folder / "proc", folder / "cgroups"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, count in counts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"oom 9\noom_kill {count}\noom_group_kill 8\n")
    return proc, cgroups


def test_the_kernels_count_is_read_where_it_is(tmp_path: Path) -> None:
    of_host = {"proc/vmstat": 7}
    v2 = host(tmp_path / "v2", V2, {"cgroups/jobs/one/memory.events": 1, **of_host})
    v1 = host(tmp_path / "v1", V1, {"cgroups/memory/jobs/one/memory.oom_control": 2, **of_host})
    inside = host(tmp_path / "in", V1, {"cgroups/memory/memory.oom_control": 3, **of_host})
    assert [memory_kills(*where) for where in (v2, v1, inside)] == [1, 2, 3]
    assert memory_kills(*host(tmp_path / "host", V2, of_host)) == 7
    assert memory_kills(*host(tmp_path / "none", V2, {})) is None
