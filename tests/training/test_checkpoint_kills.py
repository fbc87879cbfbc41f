"""Killed at any moment while it writes a checkpoint, a run leaves the old one or the new one, whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

import pytest
from dying_writers import DiesAt, Writer, ended_by, forked, hidden, newest, write

KILLS = 200
BEFORE = 4


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with as many checkpoints as are kept: the next one drops one."""
    out = tmp_path_factory.mktemp("before")
    for step in range(1, BEFORE + 1):
        write(out, step)
    return out


@pytest.mark.parametrize(
    ("step", "power"),
    [
        pytest.param(BEFORE + 1, False, id="without-power"),
        pytest.param(BEFORE + 1, True, id="killed"),
        pytest.param(BEFORE, False, id="the-same-step-without-power"),
    ],
)
def test_dead_before_any_of_its_system_calls(before: Path, tmp_path: Path, step: int, power: bool) -> None:
    whole = shutil.copytree(before, tmp_path / "whole")
    counted = DiesAt(whole)
    counted.watch(partial(write, whole, step))
    assert {"fsync", "rename", "mkdir", "rmdir"} <= set(counted.calls)
    left = set()

    for n in range(1, len(counted.calls) + 1):
        out = shutil.copytree(before, tmp_path / str(n))
        dying = DiesAt(out, n, power=power)
        child = forked(partial(dying.watch, partial(write, out, step)))
        assert ended_by(child) == signal.SIGKILL
        found = newest(out)
        # The same step again has no name for the moment between two renames; the one before it stands.
        assert found in ({BEFORE, step} if step > BEFORE else {BEFORE, BEFORE - 1}), counted.calls[:n]
        left.add((found, bool(hidden(out))))

        write(out, BEFORE + 2)
        assert (newest(out), hidden(out)) == (BEFORE + 2, []), "what the dead one left is gone"

    assert {is_hidden for _, is_hidden in left} == {True, False}
    assert len({found for found, _ in left}) == 2, "some died before it had its name, some after"


def test_all_is_on_the_disk_before_it_has_its_name(before: Path, tmp_path: Path) -> None:
    out = shutil.copytree(before, tmp_path / "out")
    counted = DiesAt(out)
    counted.watch(partial(write, out, BEFORE + 1))

    renamed = counted.calls.index("rename")
    n_files = 4  # moving, best, state, manifest
    assert counted.calls[:renamed].count("fsync") == n_files + 1, "each file, and the folder with their names"
    assert counted.calls[renamed + 1 : renamed + 4].count("fsync") == 1, "the folder with the new name"


def test_so_is_the_name_of_the_folder_that_the_first_one_makes(tmp_path: Path) -> None:
    counted = DiesAt(tmp_path)
    counted.watch(partial(write, tmp_path, 1))
    assert counted.calls[:2] == ["mkdir", "fsync"]


@pytest.mark.slow
def test_killed_two_hundred_times_at_random_moments(tmp_path: Path) -> None:
    seed = int(os.environ.get("TEST_SEED", random.randrange(2**32)))
    sys.stdout.write(f"seed {seed}: TEST_SEED={seed} draws the same moments\n")
    drawn, took, step, torn = random.Random(seed), how_long(tmp_path), 0, 0

    for kill in range(KILLS):
        written, begun = Writer(tmp_path, step).kill(after_s=drawn.uniform(0, 3) * took)
        torn += any(name.endswith(".partial") for name in hidden(tmp_path))
        step = newest(tmp_path)
        assert written <= step <= begun, f"kill {kill} of seed {seed}"

    sys.stdout.write(f"{KILLS} kills, {torn} in the middle of a checkpoint, {step} checkpoints written\n")
    assert torn > KILLS // 10
    write(tmp_path, step + 1)
    assert (newest(tmp_path), hidden(tmp_path)) == (step + 1, [])


def how_long(folder: Path) -> float:
    """Seconds that a checkpoint takes to write."""
    timed, took = folder / "timed", []
    timed.mkdir()
    for step in range(1, 8):
        began = time.monotonic()
        write(timed, step)
        took.append(time.monotonic() - began)
    shutil.rmtree(timed)
    return median(took)
