"""What networks return, taken apart into the answer and the auxiliary classifiers' scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from shared.domain.errors import Invalid
from worker.training.tasks import outputs
from worker.training.torchvision_compat import import_torchvision


@pytest.mark.parametrize(
    ("name", "side", "weights"), [("googlenet", 64, [0.3, 0.3]), ("inception_v3", 299, [0.4])]
)
def test_auxiliary_losses_are_weighted(name: str, side: int, weights: list[float]) -> None:
    builder: Any = getattr(import_torchvision().models, name)
    output = builder(weights=None, init_weights=False, num_classes=4)(torch.randn(2, 3, side, side))
    labels = torch.tensor([0, 3])

    def loss_of(scores: torch.Tensor) -> torch.Tensor:
        return cross_entropy(scores, labels)

    assert outputs.main_logits(output) is output.logits
    assert [weight for weight, _ in outputs.auxiliary_logits(output)] == weights
    expected = loss_of(output[0]) + sum(w * loss_of(s) for w, s in zip(weights, output[1:], strict=True))
    assert torch.allclose(outputs.training_loss(output, loss_of), expected)


def test_a_plain_tensor_is_its_own_scores() -> None:
    scores = torch.randn(2, 4)
    assert outputs.main_logits(scores) is scores
    assert list(outputs.auxiliary_logits(scores)) == []


def test_anything_else_is_refused_by_its_type() -> None:
    with pytest.raises(Invalid, match="dict"):
        outputs.main_logits({"out": torch.zeros(1)})
