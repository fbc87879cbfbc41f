"""Stops a run after each of its steps in turn and takes it up again, as one rank of as many as there are.

    python -m torch.distributed.run ... every_step.py spec.json STEPS OUT      STEPS: separated by commas

The ranks join once and train again and again: OUT/whole, OUT/stopped-<n>, and OUT/from-... for what went on.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from shared.domain.events import CHECKPOINT_FOLDER, StopRequest, TrainerSpec
from shared.domain.job import StopReason
from worker.training.loop import train
from worker.training.ranks import Ranks, joined_ranks


def stop_everywhere(spec: TrainerSpec, out: Path, ranks: Ranks, steps: Iterable[int]) -> None:
    """Trains `spec` without a stop and goes on from what it left; then with a stop after each of `steps`."""
    gc.freeze()  # A new phase collects garbage, which need not look through all of torch each time.
    train(spec, new_folder(out / "whole"), ranks)
    ranks.sum(torch.zeros(1))  # Rank 0's checkpoints are whole.
    for folder in sorted((out / "whole" / CHECKPOINT_FOLDER).glob("step-*")):
        go_on(spec, str(folder), new_folder(out / f"from-{folder.name}"), ranks)
    for step in steps:
        stopped = new_folder(out / f"stopped-{step}")
        with stopping_at_step(stopped, step, StopReason.PAUSE):
            train(spec, stopped, ranks)
        ranks.sum(torch.zeros(1))
        go_on(spec, last_checkpoint(stopped), new_folder(out / f"from-stopped-{step}"), ranks)


def go_on(spec: TrainerSpec, checkpoint: str, out: Path, ranks: Ranks) -> None:
    train(spec.model_copy(update={"resume_from": checkpoint, "attempt": 2}), out, ranks)


def last_checkpoint(out: Path) -> str:
    """The checkpoint of the latest step below `out`."""
    return str(max((out / CHECKPOINT_FOLDER).glob("step-*")))


def new_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def stopping_at_step(out: Path, step: int, reason: StopReason) -> Iterator[None]:
    """Writes stop.json while the given training step is being taken."""
    taken = 0

    def count(_optimizer: Any, _args: Any, _kwargs: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == step:
            write_stop(out, reason)

    hook = register_optimizer_step_post_hook(count)
    try:
        yield
    finally:
        hook.remove()


def write_stop(out: Path, reason: StopReason) -> None:
    aside = out / f"stop.aside-{os.getpid()}"
    aside.write_text(StopRequest(reason=reason, grace_s=30).model_dump_json())
    aside.rename(out / "stop.json")


if __name__ == "__main__":
    spec = TrainerSpec.model_validate_json(Path(sys.argv[1]).read_bytes())
    with joined_ranks(spec.device, spec.world_size) as ranks:
        stop_everywhere(spec, Path(sys.argv[3]), ranks, map(int, sys.argv[2].split(",")))
    sys.stdout.flush()
    os._exit(0)
