"""Random generators through a checkpoint: the next draws are the ones that would have come."""

from __future__ import annotations

import random
from io import BytesIO

import numpy as np
import torch

from worker.training.generators import (
    generators_put_back,
    restore_generators,
    save_generators,
    seed_generators,
)
from worker.training.ranks import Ranks

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))


def draws() -> list[float]:
    """Of every generator; normal draws come in pairs, so an odd number leaves half a pair in store."""
    of_python = [random.gauss(0, 1), random.random(), float(random.getrandbits(40))]
    return [*of_python, *np.random.standard_normal(3).tolist(), *torch.randn(3).tolist()]


def test_draws_go_on_where_they_were_through_a_file_read_without_pickle() -> None:
    seed_generators(11)
    draws()
    file = BytesIO()
    torch.save(save_generators(ALONE), file)
    expected = [draws() for _ in range(2)]

    seed_generators(12)
    file.seek(0)

    assert restore_generators(torch.load(file, weights_only=True), ALONE)
    assert [draws() for _ in range(2)] == expected


def test_what_is_drawn_in_a_trial_is_drawn_again() -> None:
    seed_generators(13)
    draws()

    with generators_put_back(torch.device("cpu")):
        tried = draws()

    assert draws() == tried
