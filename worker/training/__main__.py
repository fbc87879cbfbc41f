"""`python -m worker.training spec.json OUT`: one rank of a run; without torch elastic's variables, the only.

Exit code 0 with OUT/outcome.json: succeeded or stopped. Else OUT/error-rank<n>.json says why; where neither
is there, the process was killed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from worker.training.process import CannotStart, prepare


def main() -> None:
    arguments = _parse(sys.argv[1:])
    try:
        prepare(os.environ)
    except CannotStart as refusal:
        sys.exit(f"thaw trainer: {refusal}")
    from worker.training.entry import run_rank  # noqa: PLC0415  # torch is imported only by a process that may train

    run_rank(arguments.spec, arguments.out)
    _leave()


def _leave() -> NoReturn:
    """End without Python's own tidying up.

    All is written and the ranks have parted. torch's threads can crash a process that takes itself down in
    order, which torch elastic would report as a failed rank (seen once in some hundred runs on gloo).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.training", description=__doc__)
    parser.add_argument("spec", type=Path, help="spec.json, a TrainerSpec")
    parser.add_argument("out", type=Path, help="the run's folder; made if it is not there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
