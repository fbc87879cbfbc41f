"""`python -m worker.training.agent RUN torch.distributed.run ...`: torch elastic, and how its ranks died.

RUN/deaths.json names the signals that ranks died of. torch elastic itself ends with 1 whatever happened, and
its log is for people.
"""

from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from shared.domain.run_signs import DEATHS_FILE, Death, Deaths
from worker.training.files import write_json

# The agent ends the other ranks by SIGTERM, and by SIGKILL those that have not left after 30 s.
_TOGETHER_S = 10


def main() -> None:
    """Runs the module as `python -m` would."""
    run, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except ChildFailedError as failed:
        with suppress(OSError):  # a full disk, of which a rank tells
            write_json(Path(run) / DEATHS_FILE, Deaths(deaths=list(deaths(failed.failures.items()))))
        raise


def deaths(failures: Iterable[tuple[int, ProcessFailure]]) -> Iterable[Death]:
    """The ranks that died of a signal which was not the agent's own."""
    by_rank = dict(failures)
    first = min(failure.timestamp for failure in by_rank.values())
    for rank, failure in by_rank.items():
        is_of_the_agent = failure.exitcode == -signal.SIGTERM and len(by_rank) > 1
        if failure.exitcode < 0 and not is_of_the_agent and failure.timestamp - first < _TOGETHER_S:
            # The clock of torch elastic counts whole seconds: an error within the same one was there before.
            yield Death(rank=rank, signal=failure.signal_name(), time=failure.timestamp + 1)


if __name__ == "__main__":
    main()
