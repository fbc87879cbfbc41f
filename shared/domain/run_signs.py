"""What a run and its launcher tell one another beside what events.py names; files of the run's folder.

clock.json (RunClock)        from the launcher: how long the run has run
deaths.json (Deaths)         from torch elastic's agent: which ranks died of which signal
pulse-rank<n>                from a rank: touched whenever it gets further
stacks-rank<n>-<pid>.txt     from a rank: where its threads stand, when asked by SIGUSR1 or in a crash
"""

from __future__ import annotations

from pydantic import Field

from shared.domain.shape import Shape

CLOCK_FILE = "clock.json"
DEATHS_FILE = "deaths.json"
PULSE_PREFIX = "pulse-rank"
STACKS_PREFIX = "stacks-rank"


class RunClock(Shape):
    """Written about once a second."""

    ran_s: float = Field(description="since the launch; the time in which the run was held is left out")


class Death(Shape):
    """A rank that did not end by itself."""

    rank: int
    signal: str = Field(description="SIGKILL, SIGSEGV ...")
    time: float


class Deaths(Shape):
    """Of one run on one node, without those that torch elastic's agent itself has killed."""

    deaths: list[Death]


def pulse_file(rank: int) -> str:
    return f"{PULSE_PREFIX}{rank}"


def stacks_file(rank: int, pid: int) -> str:
    return f"{STACKS_PREFIX}{rank}-{pid}.txt"
