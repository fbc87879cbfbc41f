"""What it costs training that its checkpoints are uploaded beside it.

The engine trains in a process of its own, on all of the machine's cores, and writes a checkpoint after each
epoch; this process is the supervisor, with the uploads of a worker or without. Both sorts of run write the
same checkpoints to the same disk, so what differs is the upload alone: reading, summing up, and a store in
a folder, which has to reach the disk too. An epoch here takes seconds where it takes minutes on a real data
set, so a checkpoint comes far more often than in earnest.

Runs with and without are taken in turns. The cost is the ratio of each pair, less one: on a busy machine look
at the spread. Wanted is less than 5%. Writes benchmarks/results/checkpoint_upload.json; part of `make bench`.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from shared import catalog
from shared.artifacts import open_store
from shared.db.leases import Claim, StoredArtifact
from shared.domain.events import RESULT_FILE, CheckpointLine, CheckpointManifest, TrainerSpec
from shared.domain.freeze import parse_freeze, resolve
from worker.progress_tail import ProgressTail
from worker.uploads import UploadsBeside

RESULTS = Path(__file__).parent / "results" / "checkpoint_upload.json"
WANTED = 0.05
LOOK_EVERY_S = 0.2
KINDS = {"resnet18, all of it": "none", "resnet18, the head": "backbone"}
CLAIM = Claim(
    "a", "attempt-bench", "ftjob-bench", "team-bench", uuid.uuid4(), 0, [0], 1, 1, "127.0.0.1", 1, True
)


@dataclass
class Stored:
    """What the store was brought: steps and bytes, and what a run was warned of."""

    steps: list[int] = field(default_factory=list)
    bytes: int = 0
    warnings: list[str] = field(default_factory=list)

    def checkpoint(self, manifest: CheckpointManifest, prefix: str) -> None:
        self.steps.append(manifest.step)
        self.bytes += sum(entry.bytes for entry in manifest.files)

    def shard(self, shard: StoredArtifact) -> None:
        raise AssertionError("a run that trains has none")

    def note(self, code: str, message: str, data: dict[str, Any]) -> None:
        self.warnings.append(message)


def main() -> None:
    asked = _parse()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        data = write_pictures(Path(folder) / "digits", asked.samples)
        rows = [row for kind in KINDS for row in measured(kind, data, Path(folder), asked)]
    result = {
        "unit": "s of training",
        "wanted_cost": WANTED,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "epochs": asked.epochs,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    show(rows)


def measured(kind: str, data: Path, folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row: pairs of runs, each with and without uploads, the order turned round from pair to pair."""
    spec = spec_of(KINDS[kind], data, asked.epochs)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    stored = Stored()
    for pair in range(asked.pairs):
        for uploads in (True, False) if pair % 2 == 0 else (False, True):
            out = folder / f"{uuid.uuid4().hex}"
            seconds[uploads].append(trained(spec, out, stored if uploads else None))
        print(f"{kind}: with {seconds[True][-1]:.2f} s, without {seconds[False][-1]:.2f} s", flush=True)
    costs = [with_ / without - 1 for with_, without in zip(seconds[True], seconds[False], strict=True)]
    yield {
        "trains": kind,
        "checkpoint_bytes": stored.bytes // max(1, len(stored.steps)),
        "uploaded": len(stored.steps),
        "with": seconds[True],
        "without": seconds[False],
        "costs": costs,
        "warnings": stored.warnings,
    }


def trained(spec: TrainerSpec, out: Path, stored: Stored | None) -> float:
    """Seconds that the run says it trained; evaluations and the writing of checkpoints are part of it."""
    out.mkdir()
    (out / "spec.json").write_text(spec.model_dump_json())
    env = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())}
    command = [sys.executable, "-m", "worker.training", str(out / "spec.json"), str(out)]
    trainer = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    with uploading(out, stored) as uploads:
        tail = ProgressTail(out)
        while trainer.poll() is None:
            for line in tail.new_lines():
                if uploads is not None and isinstance(line, CheckpointLine):
                    uploads.add(line)
            time.sleep(LOOK_EVERY_S)
    if trainer.returncode:
        raise SystemExit(f"the trainer ended with {trainer.returncode}")
    seconds: float = json.loads((out / RESULT_FILE).read_text())["seconds"]["training"]
    shutil.rmtree(out)
    return seconds


@contextmanager
def uploading(out: Path, stored: Stored | None) -> Iterator[UploadsBeside | None]:
    if stored is None:
        yield None
        return
    store = open_store((out / "store").as_uri())
    with UploadsBeside(store, CLAIM, out, stored, lambda: None, lambda: 0.0) as uploads:
        yield uploads


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
    console = Console(width=120)
    columns = (
        "trains",
        "a checkpoint",
        "uploaded",
        "with, median",
        "without, median",
        "cost, median",
        "least to most",
    )
    table = Table(*columns, title="seconds of training, with uploads and without")
    for row in rows:
        costs = row["costs"]
        table.add_row(
            row["trains"],
            f"{row['checkpoint_bytes'] / 1e6:.2f} MB",
            str(row["uploaded"]),
            f"{median(row['with']):.2f}",
            f"{median(row['without']):.2f}",
            f"{median(costs):+.1%}",
            f"{min(costs):+.1%} to {max(costs):+.1%}",
        )
    console.print(table)
    console.print(f"wanted is a cost of less than {WANTED:.0%}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5, help="runs with and without, each")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--samples", type=int, default=1280, help="of the 1,797 scans")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where runs and store lie [a temporary one]"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
