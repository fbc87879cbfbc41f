"""`python -m worker.training spec.json OUT`: one rank of a run; without torch elastic's variables, the only.

Exit code 0 with OUT/outcome.json: succeeded or stopped. Else OUT/error-rank<n>.json says why; where neither
is there, the process was killed.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from worker.training.process import CannotStart, prepare
from worker.training.stacks import leave_stacks_on_request


def main() -> None:
    arguments = _parse(sys.argv[1:])
    try:
        prepare(os.environ)
    except CannotStart as refusal:
        sys.exit(f"thaw trainer: {refusal}")
    leave_stacks_on_request(int(os.environ.get("RANK", "0")), arguments.out)
    from worker.training.entry import run_rank  # noqa: PLC0415  # torch is imported only by a process that may train

    try:
        run_rank(arguments.spec, arguments.out)
    except Exception:
        traceback.print_exc()
        _leave(1)
    _leave(0)


def _leave(exit_code: int) -> NoReturn:
    """End without Python's own tidying up; all is written by now.

    torch's threads can crash a process that takes itself down in order, which torch elastic takes for a
    failed rank (seen once, on gloo), and NCCL can wait there for a peer for ever.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.training", description=__doc__)
    parser.add_argument("spec", type=Path, help="spec.json, a TrainerSpec")
    parser.add_argument("out", type=Path, help="the run's folder; made if it is not there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
