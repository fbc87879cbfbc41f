"""What one training step did to each network, as a table.

As a program it takes those steps on the networks that are too large for the tests, or on those named:

    python tests/training/step_table.py docs/freeze-every-model.md [MODEL...]

Each has a process of its own, as the largest takes 13 GB, and the file is written anew after each of them.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from every_model import Stepped, classifiers, every_step, n_parameters

from shared import catalog

LARGER_THAN = 30_000_000
COLUMNS = {
    "model": "model",
    "n_parameters": "parameters",
    "side": "pixels",
    "spec": "frozen by",
    "frozen": "frozen",
    "still_buffers": "still buffers",
    "frozen_moved": "of both moved",
    "trainable": "trainable",
    "trainable_moved": "moved",
    "no_gradient": "no gradient",
    "zero_gradient": "zero gradient",
    "buffers_moved": "other buffers moved",
}
PREFACE = """\
# One training step of every large model

torchvision's classification models with more than {larger_than} million parameters: {models} of {all} models,
{steps} steps. `tests/training/step_table.py` wrote this on {system}, {threads} CPU cores, torch {torch}. The
smaller models take the same steps in `make test-all`, which prints their table. Not run: {missing}.

Each step is the engine's own: SGD with momentum and weight decay, random weights, a batch of 2, pictures as
small as the network takes, once under each spec that matches something on the model. Every tensor is compared
with what it was before, bit for bit. Which tensors a spec freezes, and which buffers lie in still modules, is
worked out from the live network by plain loops that share no code with the freeze language.

- Of {fixed:,} frozen parameters and buffers of still modules, {fixed_moved:,} moved.
- Of {trainable:,} trainable parameters, {trainable_moved:,} moved. {without:,} had no gradient, or one
  that is zero everywhere, as in a branch that stochastic depth leaves out; weight decay moves some of them.
  Of all others, {stuck:,} stood still.
"""


def rows(steps: Sequence[Stepped]) -> Iterator[str]:
    """A Markdown table, columns aligned: one row a step below the head's two."""
    cells = [tuple(COLUMNS.values()), *(_cells(stepped) for stepped in steps)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(COLUMNS))]
    yield _row(cells[0], widths)
    yield _row(["-" * width for width in widths], widths)
    for row in cells[1:]:
        yield _row(row, widths)


def _cells(stepped: Stepped) -> tuple[str, ...]:
    values = asdict(stepped)
    return tuple(f"{v:,}" if isinstance(v, int) else f"`{v}`" for v in (values[key] for key in COLUMNS))


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)) + " |"


def write_table(target: Path, names: Sequence[str]) -> None:
    """The steps of the networks called `names`, those of the fewest tensors first: they are the fastest."""
    steps: list[Stepped] = []
    for name in sorted(names, key=lambda name: len(catalog.get(name).tree.names)):
        one = [sys.executable, __file__, "--one", name]
        done = subprocess.run(one, check=True, stdout=subprocess.PIPE, text=True)
        found = [Stepped(**row) for row in json.loads(done.stdout)]
        steps += found
        target.write_text("\n".join([_preface(steps), *rows(steps), ""]))
        sys.stdout.writelines(f"{line}\n" for line in list(rows(found))[2:])
        sys.stdout.flush()
    if wrong := [stepped for stepped in steps if stepped.wrong]:
        sys.exit(f"what should not have moved did, or the other way round: {wrong}")


def larger() -> list[str]:
    return [name for name in classifiers() if n_parameters(name) > LARGER_THAN]


def _preface(steps: Sequence[Stepped]) -> str:
    done = {stepped.model for stepped in steps}
    missing = [name for name in larger() if name not in done]
    return PREFACE.format(
        larger_than=LARGER_THAN // 1_000_000,
        all=len(larger()),
        models=len(done),
        missing=", ".join(missing) or "none",
        steps=len(steps),
        system=platform.system(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        fixed=sum(stepped.frozen + stepped.still_buffers for stepped in steps),
        fixed_moved=sum(stepped.frozen_moved for stepped in steps),
        trainable=sum(stepped.trainable for stepped in steps),
        trainable_moved=sum(stepped.trainable_moved for stepped in steps),
        without=sum(stepped.no_gradient + stepped.zero_gradient for stepped in steps),
        stuck=sum(stepped.stuck for stepped in steps),
    )


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        sys.stdout.write(json.dumps([asdict(stepped) for stepped in every_step(sys.argv[2])]))
    else:
        write_table(Path(sys.argv[1]), sys.argv[2:] or larger())
