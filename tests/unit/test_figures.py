"""What is shown of a job's training: the figure that its task is judged by, by its name, or all of them."""

from __future__ import annotations

from typing import Any

import pytest

from thaw.figures import Figures
from thaw.shapes import Job

STEPS = {"epoch": 0, "n_epochs": 2, "step": 5, "total_steps": 10, "loss": 0.5, "eta_s": None}


def parts(train: dict[str, Any], validation: dict[str, Any] | None = None) -> list[str]:
    progress = {"phase": "training", "train": {**STEPS, **train}, "validation": validation}
    raw = {"id": "ftjob-1", "model": "m", "status": "running", "phase": "running", "progress": progress}
    return Figures.of(Job.read(raw)).parts()[3:]


@pytest.mark.parametrize(
    ("train", "validation", "shown"),
    [
        (
            {"metrics": {"pixel_accuracy": 0.9}, "main_metric": "pixel_accuracy"},
            {"metrics": {"mean_iou": 0.75, "pixel_accuracy": 0.8}, "main_metric": "mean_iou"},
            ["loss 0.500", "pixel accuracy 0.900", "held-out mean iou 0.750"],
        ),
        ({"accuracy": None, "metrics": {}, "main_metric": None}, None, ["loss 0.500"]),
        # A network's own training steps: none of their losses is the main figure.
        (
            {"metrics": {"discriminator_loss": 0.25, "generator_loss": 0.75}, "main_metric": None},
            {"metrics": {"discriminator_loss": 0.5, "generator_loss": 1.0}, "main_metric": None},
            ["loss 0.500", "discriminator loss 0.250", "generator loss 0.750"],
        ),
        # As a server from before there were several tasks tells it.
        ({"accuracy": 0.9}, {"accuracy": 0.8}, ["loss 0.500", "accuracy 0.900", "held-out accuracy 0.800"]),
    ],
)
def test_the_main_figure_is_shown_by_its_name(
    train: dict[str, Any], validation: dict[str, Any] | None, shown: list[str]
) -> None:
    assert parts(train, validation) == shown
