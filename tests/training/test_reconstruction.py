"""The picture itself as the target: an autoencoder, one half of which is frozen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from trainer_runs import MakeSpec, Ran, RunHere

from thaw.torch import Picture, load_model, predict
from worker.training.models import build

QUICK: dict[str, Any] = {"n_epochs": 4, "learning_rate": 0.01, "optimizer": "adamw"}


def halves_that_moved(earlier: Path, later: Path) -> set[str]:
    one, other = load_file(earlier / "model.safetensors"), load_file(later / "model.safetensors")
    return {name.partition(".")[0] for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize(("frozen", "trained"), [("encoder", "decoder"), ("decoder", "encoder")])
def test_one_half_learns_and_the_other_stays_as_it_was_in_every_bit(
    make_spec: MakeSpec, run_here: RunHere, frozen: str, trained: str
) -> None:
    def run(n_epochs: int) -> Ran:
        hyperparameters = {**QUICK, "n_epochs": n_epochs}
        spec = make_spec("autoencoder", task="reconstruction", class_names=[], freeze=[frozen],
                         validation_fraction=0.2, hyperparameters=hyperparameters)  # fmt: skip
        return run_here(spec, f"epochs-{n_epochs}")

    short, long = run(1), run(4)

    assert halves_that_moved(short.out, long.out) == {trained}
    proof = long.result.frozen_proof
    assert (proof.n_parameters, proof.n_buffers) == (6, 3)
    assert set(load_file(long.out / "trainable.safetensors")) == {
        name for name in load_file(long.out / "model.safetensors") if name.startswith(trained)
    }
    losses = [epoch["validation_loss"] for epoch in long.result.epochs]
    assert losses[-1] < losses[0]
    assert long.of_type("train")[-1].metrics.keys() == {"mse"}


def test_the_figures_are_those_of_the_pictures_that_the_saved_model_makes(
    make_spec: MakeSpec, run_here: RunHere, held_out: Path, tmp_path: Path
) -> None:
    source = {"path": str(held_out), "format": "image_folder"}
    spec = make_spec(
        "autoencoder", task="reconstruction", class_names=[], validation=source, hyperparameters=QUICK
    )

    ran = run_here(spec)

    evaluation = ran.result.evaluation
    assert evaluation is not None
    assert (evaluation.n_samples, evaluation.main_metric, evaluation.accuracy) == (37, "psnr_db", None)
    pictures = sorted(held_out.rglob("*.png"))
    answers = predict(load_model(ran.out), pictures)
    assert all(isinstance(answer, Picture) and answer.psnr_db is not None for answer in answers)
    errors = [10 ** (-answer.psnr_db / 10) for answer in answers]
    assert evaluation.metrics["mse"] == pytest.approx(np.mean(errors), rel=1e-3)
    assert evaluation.metrics["psnr_db"] == pytest.approx(-10 * math.log10(np.mean(errors)), abs=0.01)
    # The deviation is 0.25 in all channels, so the two units differ by its square.
    assert evaluation.metrics["mse"] == pytest.approx(evaluation.loss * 0.25**2, rel=1e-4)
    written = tmp_path / "made" / "first.png"
    answers[0].save(written)
    shown = Image.open(pictures[0]).resize((16, 16), Image.Resampling.BILINEAR)
    made, expected = np.array(Image.open(written)) / 255, np.array(shown)[..., None] / 255
    assert made.shape == (16, 16, 3)
    # What is written is cut off at black and white.
    assert 0.5 * errors[0] < np.square(made - expected).mean() <= 1.01 * errors[0]


def test_a_network_that_makes_no_picture_is_refused_with_both_shapes(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    ran = run_here(make_spec(task="reconstruction", class_names=[]))

    assert ran.error["code"] == "bad_model_output"
    assert "into [16, 10]" in ran.error["message"]
    assert "[16, 3, 14, 14], a picture for each picture" in ran.error["message"]


def test_the_network_of_a_registered_autoencoder_has_no_head() -> None:
    assert build("autoencoder", "registered")(torch.zeros(2, 3, 16, 16)).shape == (2, 3, 16, 16)
