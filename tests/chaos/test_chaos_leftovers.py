"""What counts as left over of a killed process, on real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from conditions import wait_for
from harness.injector import can_leave

PARENT = """
import subprocess
child = subprocess.Popen(["sleep", "600"])
child.wait()
"""


@pytest.fixture
def parent() -> Iterator[psutil.Process]:
    """With a child that sleeps."""
    started = subprocess.Popen([sys.executable, "-c", PARENT])
    process = psutil.Process(started.pid)
    yield process
    if started.poll() is None:
        for one in (*process.children(recursive=True), process):
            one.kill()
    started.wait()


def test_what_is_held_is_not_left_over_until_it_is_woken(parent: psutil.Process) -> None:
    child = wait_for(parent.children, 10, "the child")[0]
    assert can_leave(parent)
    assert can_leave(child)

    child.send_signal(signal.SIGSTOP)
    wait_for(lambda: child.status() == psutil.STATUS_STOPPED, 10, "the stop")
    assert not can_leave(parent)
    assert not can_leave(child)

    child.send_signal(signal.SIGCONT)
    wait_for(lambda: child.status() == psutil.STATUS_SLEEPING, 10, "the waking")
    assert can_leave(parent)


def test_who_has_ended_is_gone(parent: psutil.Process) -> None:
    child = wait_for(parent.children, 10, "the child")[0]
    child.kill()
    psutil.wait_procs([child, parent], timeout=10)

    assert not can_leave(child)
    assert not can_leave(parent)
