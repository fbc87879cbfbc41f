"""Models that treat their buffers in unusual ways: one for several modules, or a new one at each step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worker.training.freezing import buffer_names
from worker.training.proofs import digests
from worker.training.snapshot import left_untouched
from worker.training.state import moving_tensors, put_back

CPU = torch.device("cpu")


class Masked(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)


class Averaging(nn.Module):
    """Puts a new tensor in its buffer's place instead of changing it."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        self.average = 0.9 * self.average + 0.1 * inputs.mean(dim=0)
        return inputs - self.average


def test_one_mask_of_two_blocks_is_hashed_under_both_names() -> None:
    mask = torch.ones(4)
    model = nn.Sequential(Masked(mask), Masked(mask))
    names = buffer_names(model, {"0", "1"})
    before = digests(model, names)
    assert list(before) == ["0.mask", "1.mask"]

    mask[0] = 0

    after = digests(model, names)
    assert all(before[name] != after[name] for name in names)


def test_one_mask_of_two_blocks_goes_through_a_checkpoint_to_blocks_with_one_each() -> None:
    """On a GPU each block has its own: moving a model there parts them."""
    mask = torch.ones(4)
    apart = nn.Sequential(Masked(torch.zeros(4)), Masked(torch.zeros(4)))

    put_back(apart, moving_tensors(nn.Sequential(Masked(mask), Masked(mask)), frozenset()))

    assert all(torch.equal(buffer, mask) for buffer in apart.buffers())


def test_a_buffer_that_is_replaced_in_a_trial_is_put_back() -> None:
    model = Averaging()

    with left_untouched(model, CPU):
        model(torch.ones(2, 3))
        assert model.average.sum() > 0

    assert torch.equal(model.average, torch.zeros(3))
    model(torch.ones(2, 3))
    assert torch.allclose(model.average, torch.full((3,), 0.1))
