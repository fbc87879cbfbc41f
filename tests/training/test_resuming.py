"""A run that was stopped and resumed ends with the same bits as one that never stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from every_step import stopping_at_step, write_stop
from safetensors.torch import load_file
from trainer_runs import (
    MakeSpec,
    Ran,
    RunHere,
    going_on,
    last_checkpoint,
    new_spec,
    run_in_process,
    start_ranks,
    wait_for,
)

from shared.domain.events import TrainerSpec
from shared.domain.job import StopReason
from worker.training.models import build
from worker.training.precision import Precision
from worker.training.ranks import Ranks
from worker.training.stepping import Stepper, TaskLoss
from worker.training.tasks import task_of

# Batch normalisation, dropout, momentum, mirrored pictures: all of it has to go on where it was.
MODEL = "mobilenet_v3_small"
SETTINGS: dict[str, Any] = {
    "hyperparameters": {"n_epochs": 3, "batch_size": 20},
    "preprocessing": {"augment": "flip"},
    "validation_fraction": 0.2,
}


def assert_same_end(one: Ran, other: Ran) -> None:
    for name in ("model.safetensors", "trainable.safetensors"):
        first, second = load_file(one.out / name), load_file(other.out / name)
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert one.result.epochs == other.result.epochs
    assert one.result.evaluation == other.result.evaluation
    assert one.result.ranks.checksum == other.result.ranks.checksum
    assert one.result.frozen_proof == other.result.frozen_proof


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """In this process, so that sums shared out among threads come out alike too; the other tests have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def spec(digits: Path) -> TrainerSpec:
    return new_spec(MODEL, digits, freeze=["features.0"], **SETTINGS)


@pytest.fixture(scope="module")
def whole(spec: TrainerSpec, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run that never stopped."""
    return run_in_process(spec, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("step", [4, 6])
def test_stopped_at_the_end_or_in_the_middle_of_an_epoch(
    spec: TrainerSpec, whole: Ran, run_here: RunHere, tmp_path: Path, step: int
) -> None:
    (tmp_path / "stopped").mkdir()
    with stopping_at_step(tmp_path / "stopped", step, StopReason.PAUSE):
        stopped = run_here(spec, "stopped")

    assert stopped.outcome.outcome == "stopped"
    assert stopped.outcome.reason is StopReason.PAUSE
    assert stopped.of_type("checkpoint")[-1].step == step
    assert not (stopped.out / "result.json").exists()

    resumed = run_here(going_on(spec, last_checkpoint(stopped)), "resumed")

    assert_same_end(whole, resumed)
    assert [json.loads(line)["epoch"] for line in (resumed.out / "metrics.jsonl").open()] == [0, 1, 2]


def test_a_lost_run_goes_on_from_the_checkpoint_of_an_epoch(
    spec: TrainerSpec, whole: Ran, run_here: RunHere
) -> None:
    earlier = whole.of_type("checkpoint")[-2]
    assert earlier.epoch == 2

    resumed = run_here(going_on(spec, str(whole.out / earlier.folder)), "resumed")

    assert resumed.note("resumed").data["step"] == earlier.step
    assert_same_end(whole, resumed)


def test_two_ranks_stopped_by_a_file_go_on_to_the_same_bits(
    make_spec: MakeSpec, run_ranks: RunHere, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "hyperparameters": {"n_epochs": 4, "batch_size": 20}}
    spec = make_spec(MODEL, freeze=["features.0"], world_size=2, **settings)
    out = tmp_path / "stopped"
    started = start_ranks(spec, out)
    wait_for(lambda: any((out / "checkpoints").glob("step-*/manifest.json")))
    write_stop(out, StopReason.PREEMPT)
    output, _ = started.communicate(timeout=60)
    stopped = Ran(out, started.returncode)
    assert stopped.exit_code == 0, output
    assert stopped.outcome.reason is StopReason.PREEMPT

    resumed = run_ranks(going_on(spec, last_checkpoint(stopped)), "resumed")
    whole = run_ranks(spec, "whole")

    assert resumed.exit_code == 0, resumed.output
    assert_same_end(whole, resumed)
    assert resumed.result.ranks.equal


def test_a_cancelled_run_leaves_without_a_checkpoint(
    spec: TrainerSpec, run_here: RunHere, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with stopping_at_step(tmp_path / "out", 2, StopReason.CANCEL):
        ran = run_here(spec)

    assert ran.outcome.reason is StopReason.CANCEL
    assert not ran.of_type("checkpoint")
    assert not ran.errors


def test_old_checkpoints_go_and_the_best_stays(make_spec: MakeSpec, run_here: RunHere) -> None:
    # With so high a rate and no schedule the first epochs are not beaten.
    hyperparameters = {"n_epochs": 6, "learning_rate": 0.3, "lr_schedule": "constant", "optimizer": "adamw"}
    ran = run_here(make_spec(validation_fraction=0.2, hyperparameters=hyperparameters))

    kept = {path.name for path in (ran.out / "checkpoints").iterdir()}
    written = [Path(line.folder).name for line in ran.of_type("checkpoint")]
    best = [Path(line.folder).name for line in ran.of_type("checkpoint") if line.is_best][-1]
    assert kept == {*written[-2:], best}


def test_a_checkpoint_by_the_clock_never_takes_the_folder_of_an_epochs_own(
    make_spec: MakeSpec, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.stop.CHECKPOINT_EVERY_S", -1.0)

    ran = run_here(make_spec(hyperparameters={"n_epochs": 2}))

    per_epoch = ran.result.epochs[0]["step"]
    steps = [(line.step, line.epoch) for line in ran.of_type("checkpoint")]
    assert steps == [(step, step // per_epoch) for step in range(2 * per_epoch + 1)]


def test_training_ends_when_validation_no_longer_improves(make_spec: MakeSpec, run_here: RunHere) -> None:
    hyperparameters = {
        "n_epochs": 30,
        "learning_rate": 0.3,
        "lr_schedule": "constant",
        "optimizer": "adamw",
        "early_stopping_patience": 2,
    }
    ran = run_here(make_spec(validation_fraction=0.2, hyperparameters=hyperparameters))

    result = ran.result
    assert result.stopped_early
    assert len(result.epochs) == result.best_epoch + 3
    losses = [epoch["validation_loss"] for epoch in result.epochs]
    assert min(losses) == losses[result.best_epoch]
    # The model that is saved is the best epoch's, not the last one's.
    assert result.evaluation is not None
    assert result.evaluation.loss == losses[result.best_epoch]


def test_a_run_longer_than_it_may_be_fails(make_spec: MakeSpec, run_here: RunHere) -> None:
    ran = run_here(make_spec(hyperparameters={"n_epochs": 500}, max_duration_s=0.2))

    assert ran.error["code"] == "time_limit"


def test_a_run_may_go_on_in_fp16_on_a_gpu_that_has_no_bf16(make_spec: MakeSpec) -> None:
    """The GPU before it needed no gradient scaler, so the checkpoint holds no scale."""
    spec = make_spec()
    model, phase, settings = (
        build("custom_network", "registered"),
        spec.freeze_plan.phases[0],
        spec.hyperparameters,
    )
    ranks = Ranks(0, 1, 0, 1, torch.device("cpu"))
    in_bf16, in_fp16 = (
        TaskLoss(task_of(spec), Precision(dtype, "", "cpu")) for dtype in (torch.bfloat16, torch.float16)
    )
    before = Stepper(model, phase, settings, in_bf16, ranks)
    after = Stepper(model, phase, settings, in_fp16, ranks)
    fresh = after.scaler.get_scale()

    after.go_on_from(before.saved())

    assert after.scaler.is_enabled()
    assert after.scaler.get_scale() == fresh
