"""A rank of the engine that joins the ranks' gradients in the first phase alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from worker.training.entry import run_rank
from worker.training.stepping import Stepper

wrap = Stepper.wrap


def wrap_first(stepper: Stepper, *batch: Any, **options: Any) -> None:
    if stepper.phase.from_epoch == 0:
        wrap(stepper, *batch, **options)


if __name__ == "__main__":
    Stepper.wrap = wrap_first
    run_rank(Path(sys.argv[1]), Path(sys.argv[2]))
