"""Runs that go wrong on their way: what is told, of which rank, and what is left behind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from test_refusals import Broken
from trainer_runs import MakeSpec, Ran, RunHere, last_checkpoint, read_run

from shared.domain.job import Outcome
from worker.outcome import lost, settle
from worker.training.data import open_samples
from worker.training.errors import TrainingFailed
from worker.training.explaining import report_error
from worker.training.finite import check_scale
from worker.training.loading import Batches
from worker.training.pictures import open_pictures
from worker.training.ranks import Ranks
from worker.training.transforms import Augmentation

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))
STEPS_AN_EPOCH = 5


def told(ran: Ran) -> tuple[Outcome, dict[str, object]]:
    """How a worker would say that the run ended."""
    report = settle(ran.out, lost("the trainer ended", code="trainer_ended"))
    assert report.error is not None
    return report.outcome, report.error.model_dump()


def moving_of(checkpoint: str) -> dict[str, np.ndarray]:
    return load_file(Path(checkpoint) / "moving.safetensors")


@pytest.mark.slow
def test_a_loss_that_is_nan_on_one_rank_stops_all_at_once_and_leaves_a_good_checkpoint(
    make_spec: MakeSpec, run_ranks: RunHere
) -> None:
    ran = run_ranks(make_spec("diverging", world_size=2, hyperparameters={"n_epochs": 5, "batch_size": 20}))

    outcome, error = told(ran)
    assert (outcome, error["code"], error["rank"]) == (Outcome.FAILED, "non_finite_loss", 1)
    assert "the loss was NaN at step 8 (epoch 2) on rank 1, with learning rate" in str(error["message"])
    assert "precision fp32" in str(error["message"])
    assert "learning_rate below 0.01" in str(error["hint"])
    assert len(ran.errors) == 2, "every rank ends by itself, and for the same reason"
    assert last_checkpoint(ran).endswith(f"step-{STEPS_AN_EPOCH:06d}"), "the epoch before"
    assert all(np.isfinite(values).all() for values in moving_of(last_checkpoint(ran)).values())


@pytest.mark.slow
def test_what_a_model_raises_on_one_rank_is_told_in_its_own_words(
    make_spec: MakeSpec, run_ranks: RunHere
) -> None:
    ran = run_ranks(make_spec("failing", world_size=2, hyperparameters={"n_epochs": 5, "batch_size": 20}))

    outcome, error = told(ran)
    assert (outcome, error["code"], error["rank"]) == (Outcome.FAILED, "model_raised", 1)
    assert "ValueError: the eighth step is one too many" in str(error["message"])
    assert re.search(r"in go_wrong, small_networks\.py:\d+", str(error["message"]))
    assert str(error["traceback"]).rstrip().endswith("ValueError: the eighth step is one too many")


def test_a_divergence_says_step_epoch_rate_and_precision(make_spec: MakeSpec, run_here: RunHere) -> None:
    ran = run_here(make_spec(hyperparameters={"learning_rate": 10.0, "n_epochs": 9, "momentum": 0.99}))

    words = (
        r"the loss was (NaN|infinite) at step \d+ \(epoch \d\), with learning rate [\d.]+ and precision fp32"
    )
    assert re.search(words, ran.error["message"]), ran.error["message"]


def test_weights_that_a_step_broke_reach_no_checkpoint(
    make_spec: MakeSpec, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.network.build", lambda *_: Broken())

    ran = run_here(make_spec(hyperparameters={"batch_size": 100, "n_epochs": 2}))

    assert ran.error["code"] == "non_finite_loss"
    assert "step 1 left values that are not finite" in ran.error["message"]
    assert not ran.of_type("checkpoint")


def test_the_loss_of_a_networks_own_step_is_named(make_spec: MakeSpec, run_here: RunHere) -> None:
    ran = run_here(make_spec("overflowing", task="custom", hyperparameters={"n_epochs": 4}))

    assert ran.error["code"] == "non_finite_loss"
    assert "the loss (generator_loss) was infinite at step" in ran.error["message"]


def test_a_model_that_is_not_installed_here_is_the_machines_fault(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    spec = make_spec("custom_network")
    missing = spec.base.model_copy(update={"name": "custom_netwrok"})

    ran = run_here(spec.model_copy(update={"base": missing}))

    outcome, error = told(ran)
    assert (outcome, error["code"]) == (Outcome.LOST, "model_not_installed")
    assert "custom_network" in str(error["message"]), "the nearest is named"


def test_overflowing_gradients_now_and_then_are_normal_and_for_ever_are_not() -> None:
    scaler = torch.amp.GradScaler("cpu")
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def step(gradient: float) -> None:
        scaler.scale((weight * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    for number in range(10):
        step(float("inf") if number % 2 else 1.0)
        check_scale(scaler.get_scale(), number)
    assert weight.isfinite().all()
    for _ in range(40):
        step(float("inf"))
    with pytest.raises(TrainingFailed, match="overflowed fp16 at so many steps"):
        check_scale(scaler.get_scale(), 50)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_picture_that_breaks_while_training_is_named(
    make_spec: MakeSpec, digits: Path, tmp_path: Path, damage: str
) -> None:
    folder = shutil.copytree(digits, tmp_path / "data")
    spec = make_spec()
    source = spec.train.model_copy(update={"path": str(folder)})
    samples = open_samples(source, "classification", spec.class_names)
    pictures, _ = open_pictures(samples, (14, 14), 0.0, ALONE, may_cache=False)
    victim = folder / samples.name(3)
    victim.write_bytes(victim.read_bytes()[:40]) if damage == "cut" else victim.unlink()

    with pytest.raises(Exception, match="worker process") as caught:
        list(Batches(pictures, Augmentation("none", 1), ALONE).load([[1, 2, 3]]))
    report = report_error(caught.value, 0, "a batch", tmp_path)

    assert report.code == ("bad_data" if damage == "cut" else "read_failed")
    assert report.message.startswith(f"sample 3, {samples.name(3)}"), report.message
    assert "\n" not in report.message


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a capacity of ..."
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_every_way_to_run_out_of_memory_says_what_was_tried(error: Exception, tmp_path: Path) -> None:
    report = report_error(error, 1, "batch_size 64 (32 on each of 2 ranks) of 224x224 pictures", tmp_path)

    assert (report.code, report.rank) == ("out_of_memory", 1)
    assert "no memory left with batch_size 64 (32 on each of 2 ranks)" in report.message
    assert "half the batch_size" in (report.hint or "")
    assert "\n" not in report.message


SMALL_DISK = """
set -e
mount -t tmpfs -o size={size}k none {out}
{python} -m worker.training {spec} {out} || true
cp {out}/error-rank0.json {kept}
"""


def test_a_full_disk_is_told_by_name_with_what_is_free(make_spec: MakeSpec, tmp_path: Path) -> None:
    """A real one, in which the result has no room. Checkpoints without room cost a run nothing."""
    out, spec, kept = tmp_path / "out", tmp_path / "spec.json", tmp_path / "error-rank0.json"
    out.mkdir()
    spec.write_text(make_spec(hyperparameters={"n_epochs": 1}).model_dump_json())
    script = SMALL_DISK.format(size=160, python=sys.executable, spec=spec, out=out, kept=kept)
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    ran = subprocess.run(namespace, capture_output=True, text=True, check=False)
    if "unshare" in ran.stderr or "mount" in ran.stderr:
        pytest.skip(f"needs a user namespace: {ran.stderr}")

    error = read_run(tmp_path).error
    assert error["code"] == "disk_full", ran.stderr
    assert "No space left on device (ENOSPC) while writing .model.safetensors" in error["message"]
    assert re.search(r"[\d,]+ bytes are free in ", error["message"])
