"""What a rank says of itself: start, each step of its optimizer, end; a line each, in a file of its own.

CHAOS_LOGS names the folder. A line is written by one write(2) before the program goes on, so what a killed or
stopped process has said is what it has done. Times are CLOCK_BOOTTIME, in seconds. What identifies the run
comes from the process's own command line; a process that is no rank of a run says nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook


@lru_cache
def attend() -> None:
    """Begin to write, once a process, if it is a rank."""
    if "RANK" in os.environ and "CHAOS_LOGS" in os.environ:
        _Witness(Path(sys.argv[1]), Path(sys.argv[2])).begin()


class _Witness:
    def __init__(self, spec: Path, run: Path) -> None:
        self._pid = os.getpid()
        rank = int(os.environ["RANK"])
        locks = os.environ["THAW_SLOT_LOCKS"].split(":")
        self._facts = {
            "job": json.loads(spec.read_text())["job_id"],
            "attempt": run.name,
            "rank": rank,
            "pid": self._pid,
            "slot": locks[int(os.environ["LOCAL_RANK"])],
        }
        path = Path(os.environ["CHAOS_LOGS"]) / f"{run.name}-{rank}-{self._pid}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def begin(self) -> None:
        self._say("start", **self._facts)
        register_optimizer_step_post_hook(self._stepped)
        leave = os._exit  # by which a rank ends once all is written

        def say_and_leave(status: int, /) -> NoReturn:
            if os.getpid() == self._pid:  # and no process that loads its data
                self._say("end", status=status)
            leave(status)

        os._exit = say_and_leave

    def _stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """AdamW counts its steps over the whole job: the count comes back with the checkpoint."""
        self._say("step", step=int(next(iter(optimizer.state.values()))["step"]))

    def _say(self, what: str, **facts: Any) -> None:
        line = {"t": time.clock_gettime(time.CLOCK_BOOTTIME), "what": what, **facts}
        os.write(self._file, json.dumps(line).encode() + b"\n")
