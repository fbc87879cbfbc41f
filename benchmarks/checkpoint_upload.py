"""What it costs training that its checkpoints are uploaded beside it.

The engine trains in a process of its own, on all of the machine's cores, and writes a checkpoint after each
epoch; this process is the supervisor. It uploads the checkpoint of every other epoch, in turns as with,
without, without, with: so one run holds both sorts of epochs, and what slows the machine for a while slows
both. An epoch's seconds are those from one checkpoint's line to the next: its steps, and the writing of a
checkpoint. With uploads that of the one before goes on meanwhile: reading, summing up, and a store in a
folder, which has to reach the disk too.

The cost is the ratio of each pair of epochs, less one. An epoch here takes seconds where it takes minutes on
a real data set, so a checkpoint comes far more often than in earnest: the last column has what is left of the
cost at one every five minutes, as the engine writes them within long epochs. On a busy machine look at the
spread, and at the processor's time, which does not depend on who else is there: what an upload takes of it,
over what the training of an epoch takes. Wanted is less than 5%. Writes
benchmarks/results/checkpoint_upload.json; part of `make bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise, starmap
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from shared import catalog
from shared.artifacts import open_store
from shared.db.leases import Claim, StoredArtifact
from shared.domain.events import CheckpointLine, CheckpointManifest, TrainerSpec
from shared.domain.freeze import parse_freeze, resolve
from worker.progress_tail import ProgressTail
from worker.uploads import UploadsBeside

RESULTS = Path(__file__).parent / "results" / "checkpoint_upload.json"
WANTED = 0.05
LOOK_EVERY_S = 0.2
CHECKPOINT_EVERY_S = 300
KINDS = {"resnet18, all of it": "none", "resnet18, the head": "backbone"}
CLAIM = Claim(
    "a", "attempt-bench", "ftjob-bench", "team-bench", uuid.uuid4(), 0, [0], 1, 1, "127.0.0.1", 1, True
)


@dataclass
class Stored:
    """What the store was brought, and when."""

    times: dict[int, float] = field(default_factory=dict)
    bytes: int = 0
    warnings: list[str] = field(default_factory=list)

    def checkpoint(self, manifest: CheckpointManifest, prefix: str) -> None:
        self.times[manifest.step] = time.time()
        self.bytes = sum(entry.bytes for entry in manifest.files)

    def shard(self, shard: StoredArtifact) -> None:
        raise AssertionError("a run that trains has none")

    def note(self, code: str, message: str, data: dict[str, Any]) -> None:
        self.warnings.append(message)


@dataclass(frozen=True)
class Epoch:
    """From one checkpoint's line to the next. `upload_s`: of the first one's upload; None: without.

    `own_cpu_s` is the processor's time of this process, `trainer_cpu_s` of the other.
    """

    seconds: float
    own_cpu_s: float
    trainer_cpu_s: float
    upload_s: float | None


def main() -> None:
    asked = _parse()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        data = write_pictures(Path(folder) / "digits", asked.samples)
        rows = [measured(kind, data, Path(folder) / f"run-{n}", asked.pairs) for n, kind in enumerate(KINDS)]
    result = {"wanted_cost": WANTED, "cores": os.cpu_count(), "load_before": load, "rows": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    show(rows)


def measured(kind: str, data: Path, out: Path, pairs: int) -> dict[str, Any]:
    """One run, and what its pairs of epochs tell."""
    stored = Stored()
    # The first epoch has no line before it.
    epochs = trained(spec_of(KINDS[kind], data, 2 * pairs + 1), out, stored)
    sorts = [
        (first, second) if is_first_with(pair) else (second, first)
        for pair, (first, second) in paired(epochs)
    ]
    uploads = [with_.upload_s for with_, _ in sorts if with_.upload_s is not None]
    assert len(uploads) == pairs, stored.warnings
    return {
        "trains": kind,
        "checkpoint_bytes": stored.bytes,
        "pairs": pairs,
        "with": [with_.seconds for with_, _ in sorts],
        "without": [without.seconds for _, without in sorts],
        "costs": [with_.seconds / without.seconds - 1 for with_, without in sorts],
        "lost_s": [with_.seconds - without.seconds for with_, without in sorts],
        "upload_s": uploads,
        "upload_cpu_s": [with_.own_cpu_s - without.own_cpu_s for with_, without in sorts],
        "trainer_cpu_s": [without.trainer_cpu_s for _, without in sorts],
        # Such an upload slowed an epoch of the other sort too: more samples make it longer.
        "longer_than_their_epoch": sum(
            upload > with_.seconds for upload, (with_, _) in zip(uploads, sorts, strict=True)
        ),
    }


def is_first_with(pair: int) -> bool:
    return pair % 2 == 0


def paired(epochs: Sequence[Epoch]) -> list[tuple[int, tuple[Epoch, Epoch]]]:
    return list(enumerate(zip(epochs[::2], epochs[1::2], strict=True)))


def trained(spec: TrainerSpec, out: Path, stored: Stored) -> list[Epoch]:
    """Trains, and uploads what is to be uploaded."""
    out.mkdir()
    (out / "spec.json").write_text(spec.model_dump_json())
    env = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())}
    command = [sys.executable, "-m", "worker.training", str(out / "spec.json"), str(out)]
    trainer = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    store = open_store((out / "store").as_uri())
    lines, cpu = list[CheckpointLine](), list[tuple[float, float]]()
    with UploadsBeside(store, CLAIM, out, stored, lambda: None, lambda: 0.0) as uploads:
        tail, watched, ended = ProgressTail(out), psutil.Process(trainer.pid), False
        while not ended:
            ended = trainer.poll() is not None
            for line in tail.new_lines():
                if isinstance(line, CheckpointLine):
                    cpu.append((time.process_time(), cpu[-1][1] if ended else cpu_of(watched)))
                    if has_upload(len(lines)):
                        uploads.add(line)
                    lines.append(line)
            time.sleep(LOOK_EVERY_S)
    if trainer.returncode:
        raise SystemExit(f"the trainer ended with {trainer.returncode}")
    shutil.rmtree(out)
    return list(starmap(partial(epoch_of, stored), zip(pairwise(lines), pairwise(cpu), strict=True)))


def epoch_of(
    stored: Stored,
    lines: tuple[CheckpointLine, CheckpointLine],
    cpu: tuple[tuple[float, float], tuple[float, float]],
) -> Epoch:
    (before, after), ((own, trainer), (own_after, trainer_after)) = lines, cpu
    was_stored = stored.times.get(before.step)
    upload_s = None if was_stored is None else was_stored - before.time
    return Epoch(after.time - before.time, own_after - own, trainer_after - trainer, upload_s)


def has_upload(number: int) -> bool:
    """Whether the checkpoint of this number, counted from 0, is uploaded: with, without, without, with."""
    pair, second = divmod(number, 2)
    return is_first_with(pair) is not bool(second)


def cpu_of(process: psutil.Process) -> float:
    """Seconds of the processor, over all of its threads."""
    times = process.cpu_times()
    return float(times.user + times.system)


def spec_of(freeze: str, data: Path, n_epochs: int) -> TrainerSpec:
    known = catalog.get("resnet18")
    tree, frozen, head = known.tree.with_num_classes(10), parse_freeze(freeze), list(known.tree.head)
    network = {"source": "torchvision", "name": "resnet18", "num_classes": 1000, "head": head}
    return TrainerSpec.model_validate(
        {
            "job_id": CLAIM.job_id,
            "attempt_id": CLAIM.attempt_id,
            "attempt": 1,
            "task": "classification",
            "base": network,
            "target": {**network, "num_classes": 10},
            "replace_head": True,
            "weights": None,
            "train": {"path": str(data), "format": "image_folder"},
            "validation": None,
            "validation_fraction": None,
            "class_names": [str(digit) for digit in range(10)],
            "freeze": frozen,
            "freeze_plan": resolve(frozen, tree, head_replaced=True),
            "hyperparameters": {
                "n_epochs": n_epochs,
                "batch_size": 32,
                "learning_rate": 0.001,
                "optimizer": "adamw",
                "momentum": 0.9,
                "weight_decay": 0.0,
                "lr_schedule": "constant",
                "warmup_steps": 0,
                "gradient_clip_norm": None,
                "label_smoothing": 0.0,
                "precision": "fp32",
                "early_stopping_patience": None,
            },
            "preprocessing": {
                "height": 64,
                "width": 64,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
                "augment": "none",
                "max_unreadable_fraction": 0.0,
            },
            "device": "cpu",
            "world_size": 1,
            "seed": 7,
        }
    )


def write_pictures(folder: Path, n: int) -> Path:
    """scikit-learn's scans, one folder a digit."""
    import numpy as np  # noqa: PLC0415  # not before the other processes have what they need
    from PIL import Image  # noqa: PLC0415
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    for index in range(n):
        place = folder / str(digits.target[index])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[index] * 15.9).astype(np.uint8)).save(place / f"{index:04d}.png")
    return folder


def show(rows: Sequence[dict[str, Any]]) -> None:
    console = Console(width=150)
    columns = (
        "trains",
        "a checkpoint",
        "its upload",
        "with",
        "without",
        "cost",
        "middle half",
        "every 5 min",
        "cpu of an upload",
        "of an epoch",
    )
    table = Table(*columns, title="seconds of an epoch with an upload beside it and without, medians")
    for row in rows:
        low, middle, high = quantiles(row["costs"], n=4)
        table.add_row(
            row["trains"],
            f"{row['checkpoint_bytes'] / 1e6:.2f} MB",
            f"{median(row['upload_s']):.2f} s",
            f"{median(row['with']):.2f} s",
            f"{median(row['without']):.2f} s",
            f"{middle:+.1%}",
            f"{low:+.1%} to {high:+.1%}",
            f"{median(row['lost_s']) / CHECKPOINT_EVERY_S:+.2%}",
            f"{median(row['upload_cpu_s']):.3f} s",
            f"{median(row['upload_cpu_s']) / median(row['trainer_cpu_s']):.1%}",
        )
        if row["longer_than_their_epoch"]:
            console.print(
                f"{row['trains']}: {row['longer_than_their_epoch']} uploads took longer than their epoch"
            )
    console.print(table)
    console.print(f"wanted is a cost of less than {WANTED:.0%}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=8, help="epochs with and without, each")
    parser.add_argument("--samples", type=int, default=1797, help="of the 1,797 scans: how long an epoch is")
    parser.add_argument("--folder", type=Path, default=None, help="where run and store lie [a temporary one]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
