"""Real data, real specs, and reading what a run left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scans import CLASSES
from small_networks import NETWORKS
from step_networks import STEP_NETWORKS
from torch import nn

from shared.domain.events import PROGRESS_LINE, OutcomeReport, ProgressLine, TrainerSpec
from shared.domain.freeze import FreezePlan, parse_freeze, resolve
from shared.domain.module_tree import ModuleTree
from shared.domain.training_result import TrainingResult
from shared.domain.training_steps import TrainingStep, read_steps
from worker.training.explaining import report_error
from worker.training.loop import train
from worker.training.models import build, describe_module, head_paths
from worker.training.ranks import joined_ranks

HYPERPARAMETERS: dict[str, Any] = {
    "n_epochs": 1,
    "batch_size": 16,
    "learning_rate": 0.01,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 0.0001,
    "lr_schedule": "cosine",
    "warmup_steps": 0,
    "gradient_clip_norm": None,
    "label_smoothing": 0.0,
    "precision": "auto",
    "early_stopping_patience": None,
}
REGISTERED = {"autoencoder", "custom_network", "nested_network", *NETWORKS, *STEP_NETWORKS}
SIZES = {
    **{name: network.image_size for name, network in {**NETWORKS, **STEP_NETWORKS}.items()},
    "mobilenet_v3_small": (32, 32),
    "resnet18": (32, 32),
    "autoencoder": (16, 16),
    "custom_network": (14, 14),
    "nested_network": (24, 40),
}


@dataclass
class Ran:
    """A run's folder, read."""

    out: Path
    exit_code: int = 0
    output: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def result(self) -> TrainingResult:
        return TrainingResult.model_validate_json((self.out / "result.json").read_bytes())

    @property
    def outcome(self) -> OutcomeReport:
        return OutcomeReport.model_validate_json((self.out / "outcome.json").read_bytes())

    @property
    def lines(self) -> list[ProgressLine]:
        return [
            PROGRESS_LINE.validate_json(line)
            for line in (self.out / "progress.jsonl").read_text().splitlines()
        ]

    def of_type(self, kind: str) -> list[Any]:
        return [line for line in self.lines if line.type == kind]

    def note(self, code: str) -> Any:
        return next(line for line in self.of_type("note") if line.code == code)

    @property
    def error(self) -> dict[str, Any]:
        return min(self.errors, key=lambda error: (error["code"] == "peer_lost", error["time"]))


def read_run(out: Path, exit_code: int = 0, output: str = "") -> Ran:
    errors = [json.loads(path.read_text()) for path in sorted(out.glob("error-rank*.json"))]
    return Ran(out, exit_code, output, errors)


def last_checkpoint(ran: Ran) -> str:
    """The folder of the last one that the run wrote."""
    return str(ran.out / ran.of_type("checkpoint")[-1].folder)


def going_on(spec: TrainerSpec, folder: str) -> TrainerSpec:
    """The same job's next attempt, from the checkpoint in `folder`."""
    return spec.model_copy(update={"resume_from": folder, "attempt": 2})


def run_in_process(spec: TrainerSpec, out: Path) -> Ran:
    """Trains here, as one rank."""
    out.mkdir(exist_ok=True)
    try:
        with joined_ranks(spec.device, spec.world_size) as ranks:
            train(spec, out, ranks)
    except Exception as error:
        report_error(error, 0, "that batch size", out)
        return read_run(out, exit_code=1)
    return read_run(out)


def wait_for(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Returns once `condition` holds; fails after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


SEVERAL_RUNS = Path(__file__).with_name("several_runs.py")
MakeSpec = Callable[..., TrainerSpec]


def new_spec(
    model: str,
    data: Path,
    *,
    freeze: Any = "none",
    later: Mapping[int, Any] | None = None,
    num_classes: int = 10,
    replace_head: bool = False,
    base_classes: int | None = None,
    world_size: int = 1,
    size: tuple[int, int] | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    **fields: Any,
) -> TrainerSpec:
    """`later` maps epochs to what is frozen from then on, in place of `freeze`."""
    source: Any = "registered" if model in REGISTERED else "torchvision"
    built = build(model, source)
    head = list(head_paths(built, model, source))
    if head:
        base_classes = base_classes or describe_module(built, head).num_classes
        replace_head = replace_head or base_classes != num_classes
        tree = describe_module(built, head).with_num_classes(num_classes)
    else:
        base_classes = num_classes = 0
        tree = describe_module(built, head)
    spec, steps = parse_freeze(freeze), steps_of(built)
    height, width = size or SIZES[model]
    base = {"source": source, "name": model, "num_classes": base_classes, "head": head}
    return TrainerSpec.model_validate(
        {
            "job_id": "ftjob-test",
            "attempt_id": "attempt-test",
            "attempt": 1,
            "task": "classification",
            "base": base,
            "target": {**base, "num_classes": num_classes},
            "replace_head": replace_head,
            "weights": None,
            "train": {"path": str(data), "format": "image_folder"},
            "validation": None,
            "validation_fraction": None,
            "class_names": CLASSES[:num_classes] if head else CLASSES,
            "freeze": spec,
            "freeze_plan": plan_of({0: freeze, **later}, tree, head_replaced=replace_head, steps=steps)
            if later
            else resolve(spec, tree, head_replaced=replace_head, training_steps=steps),
            "hyperparameters": {**HYPERPARAMETERS, **(hyperparameters or {})},
            "preprocessing": {
                "height": height,
                "width": width,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
                "augment": "none",
                "max_unreadable_fraction": 0.01,
                **(preprocessing or {}),
            },
            "device": "cpu",
            "world_size": world_size,
            "seed": 7,
            **fields,
        }
    )


def plan_of(
    by_epoch: Mapping[int, Any],
    tree: ModuleTree,
    *,
    head_replaced: bool = False,
    steps: Sequence[TrainingStep] = (),
) -> FreezePlan:
    """A phase for each epoch, in which what stands there is frozen and the rest trains."""
    alone = [
        resolve(parse_freeze(freeze), tree, head_replaced=head_replaced, training_steps=steps)
        for freeze in by_epoch.values()
    ]
    phases = [
        plan.phases[0].model_copy(update={"from_epoch": epoch})
        for epoch, plan in zip(by_epoch, alone, strict=True)
    ]
    return alone[0].model_copy(update={"phases": tuple(phases)})


def steps_of(model: nn.Module) -> Sequence[TrainingStep]:
    """The training steps that the network brings along."""
    return read_steps(model.training_steps) if hasattr(model, "training_steps") else ()


RunHere = Callable[..., Ran]


def start_ranks(
    spec: TrainerSpec, out: Path, program: Sequence[str] = ("-m", "worker.training")
) -> subprocess.Popen[str]:
    """Starts the run's ranks under torch elastic, as a worker does."""
    file = out.with_name(f"{out.name}-spec.json")
    file.write_text(spec.model_dump_json())
    return start_elastic([*program, str(file)], out, spec.world_size)


def start_elastic(program: Sequence[str], out: Path, world_size: int) -> subprocess.Popen[str]:
    """Starts `program` as `world_size` ranks, with the folder `out` as its last argument."""
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=static", "--nnodes=1"]
    command += [f"--nproc-per-node={world_size}", "--master-addr=127.0.0.1"]
    command += [f"--master-port={free_port()}", *program, str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_several(specs: Mapping[str, TrainerSpec], out: Path) -> dict[str, Ran]:
    """Trains each of `specs`, all for the same number of ranks, in one start."""
    out.mkdir()
    as_data = {name: spec.model_dump(mode="json") for name, spec in specs.items()}
    (out / "specs.json").write_text(json.dumps(as_data))
    world_size = next(iter(specs.values())).world_size
    started = start_elastic([str(SEVERAL_RUNS), str(out / "specs.json")], out, world_size)
    output, _ = started.communicate(timeout=200)
    assert started.returncode == 0, output
    return {name: read_run(out / name) for name in specs}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
