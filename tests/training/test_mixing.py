"""A network whose answer to one picture depends on the others of the batch is refused before training."""

from __future__ import annotations

import pytest
import torch
from small_networks import Residual
from torch import Tensor, nn
from trainer_runs import MakeSpec, RunHere


class Centred(Residual):
    """Subtracts the mean of the batch."""

    def forward(self, pictures: Tensor) -> Tensor:
        scores = super().forward(pictures)
        return scores - scores.mean(dim=0)


class Attending(Residual):
    """Only the last picture of a batch looks at another, the first."""

    def forward(self, pictures: Tensor) -> Tensor:
        scores = super().forward(pictures)
        return torch.cat([scores[:-1], scores[-1:] + 0.1 * scores[:1]])


class Untracked(Residual):
    """Normalises by the batch in use too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer2.bn1 = nn.BatchNorm2d(16, track_running_stats=False)


class Noisy(Residual):
    """Draws in use, each picture for itself."""

    def forward(self, pictures: Tensor) -> Tensor:
        return super().forward(pictures + torch.randn_like(pictures))


@pytest.mark.parametrize("network", [Centred, Attending, Untracked])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_mixed_samples_are_refused(
    make_spec: MakeSpec,
    run_here: RunHere,
    monkeypatch: pytest.MonkeyPatch,
    network: type[Residual],
    batch_size: int,
) -> None:
    monkeypatch.setattr("worker.training.network.build", lambda *_: network())

    ran = run_here(make_spec("residual", hyperparameters={"batch_size": batch_size}))

    assert ran.error["code"] == "bad_model_output"
    assert "in eval mode the model mixes the samples of a batch" in ran.error["message"]
    assert f"of {max(2, batch_size)} changed by" in ran.error["message"]
    assert not ran.of_type("train")


@pytest.mark.parametrize("network", [Residual, Noisy])
def test_samples_that_are_apart_are_not(
    make_spec: MakeSpec, run_here: RunHere, monkeypatch: pytest.MonkeyPatch, network: type[Residual]
) -> None:
    monkeypatch.setattr("worker.training.network.build", lambda *_: network())

    assert run_here(make_spec("residual")).outcome.outcome == "succeeded"
