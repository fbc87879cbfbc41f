"""What cannot be trained is refused at once, in words that say why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scans import write_digits
from thaw_example_models.custom_network import CustomNetwork
from torch import Tensor
from trainer_runs import MakeSpec, RunHere

from worker.training.explaining import report_error
from worker.training.images import decode


def test_a_batch_that_grows_on_its_way_is_refused_with_both_shapes(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    ran = run_here(make_spec("nested_network", size=(38, 38)))

    assert ran.error["code"] == "bad_model_output"
    assert "[16, 3, 38, 38]" in ran.error["message"]
    assert "[32, 10]" in ran.error["message"]
    assert "[16, 10]" in ran.error["message"]


def test_a_size_that_the_model_cannot_take_is_refused_in_its_own_words(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    ran = run_here(make_spec("nested_network", size=(32, 32), hyperparameters={"batch_size": 12}))

    assert ran.error["code"] == "bad_model_output"
    assert "RuntimeError" in ran.error["message"]
    assert "[12, 3, 32, 32]" in ran.error["message"]
    assert "32x32" in ran.error["hint"]
    assert "Traceback" in ran.error["traceback"]


@pytest.fixture
def with_bad_pictures(digits: Path, tmp_path: Path) -> Path:
    """100 good pictures, and three that are none."""
    folder = shutil.copytree(digits, tmp_path / "data")
    (folder / "0" / "text.png").write_text("no picture")
    good = next((folder / "1").iterdir()).read_bytes()
    (folder / "1" / "cut.png").write_bytes(good[: len(good) // 2])
    Image.new("1", (9_000, 8_000)).save(folder / "2" / "huge.png")
    return folder


def test_bad_pictures_are_skipped_and_named(
    make_spec: MakeSpec, run_here: RunHere, with_bad_pictures: Path
) -> None:
    source = {"path": str(with_bad_pictures), "format": "image_folder"}

    ran = run_here(make_spec(train=source, preprocessing={"max_unreadable_fraction": 0.05}))

    assert ran.result.skipped_images == ["0/text.png", "1/cut.png", "2/huge.png"]
    assert ran.result.n_train_samples == 100
    reasons = {image["name"]: image["reason"] for image in ran.note("skipped_images").data["images"]}
    assert "no known picture format" in reasons["0/text.png"]
    assert "9000x8000" in reasons["2/huge.png"]


def test_too_many_bad_pictures_fail_the_job_with_the_list(
    make_spec: MakeSpec, run_here: RunHere, with_bad_pictures: Path
) -> None:
    source = {"path": str(with_bad_pictures), "format": "image_folder", "name": "scans.zip (file-1)"}

    ran = run_here(make_spec(train=source))

    assert ran.error["code"] == "bad_data"
    assert ran.error["message"].startswith("in scans.zip (file-1): ")
    assert "3 of 103" in ran.error["message"]
    assert "1/cut.png" in ran.error["message"]


def test_one_class_only_is_refused(make_spec: MakeSpec, run_here: RunHere, tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "ones", 0, 50, ["1"])

    ran = run_here(make_spec(train={"path": str(folder), "format": "image_folder"}))

    assert ran.error["code"] == "bad_data"
    assert "'1'" in ran.error["message"]


def test_an_unknown_class_is_refused_by_name(make_spec: MakeSpec, run_here: RunHere, digits: Path) -> None:
    ran = run_here(make_spec("custom_network", num_classes=9))

    assert ran.error["code"] == "bad_data"
    assert "9" in ran.error["message"]


def test_a_loss_that_is_not_finite_stops_at_once_with_its_step(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    ran = run_here(make_spec(hyperparameters={"learning_rate": 10.0, "n_epochs": 5, "momentum": 0.99}))

    assert ran.error["code"] == "non_finite_loss"
    assert "at step " in ran.error["message"]
    assert not (ran.out / "result.json").exists()


class _BreaksGradients(torch.autograd.Function):
    """Passes the scores on, and NaN back."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        return scores.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


class Broken(CustomNetwork):
    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = _BreaksGradients.apply(super().forward(images))
        return scores


class AnotherInUse(CustomNetwork):
    def forward(self, images: Tensor) -> Tensor:
        scores = super().forward(images)
        return scores if self.training else scores[:, :9]


def test_a_model_that_the_last_step_broke_is_not_saved(
    make_spec: MakeSpec, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.network.build", lambda *_: Broken())

    ran = run_here(make_spec(hyperparameters={"batch_size": 100}))

    assert ran.error["code"] == "non_finite_loss"
    assert "conv1.weight" in ran.error["message"]
    assert not (ran.out / "model.safetensors").exists()


def test_a_model_that_answers_otherwise_in_use_is_refused_before_training(
    make_spec: MakeSpec, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.network.build", lambda *_: AnotherInUse())

    ran = run_here(make_spec())

    assert ran.error["code"] == "bad_model_output"
    assert "in eval mode" in ran.error["message"]
    assert "[16, 9]" in ran.error["message"]
    assert not ran.of_type("train")


def test_sixteen_bit_fp16_needs_a_gpu(make_spec: MakeSpec, run_here: RunHere) -> None:
    ran = run_here(make_spec(hyperparameters={"precision": "fp16"}))

    assert ran.error["code"] == "unsupported_precision"


def test_running_out_of_memory_is_told_with_the_batch_size_that_was_tried(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)

    report = report_error(caught.value, 1, "batch_size 64 (32 on each of 2 ranks)", tmp_path)

    assert report.code == "out_of_memory"
    assert "batch_size 64" in report.message
    assert report.hint is not None
    assert (tmp_path / "error-rank1.json").exists()


def test_sixteen_bit_greys_keep_their_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65_535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")

    pixels = decode((tmp_path / "ramp.png").read_bytes())

    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
