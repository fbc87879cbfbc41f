"""Average precision of each class, exact."""

from __future__ import annotations

import torch
from torch import Tensor


def average_precision(scores: Tensor, has: Tensor) -> Tensor:
    """For each class the precision at each threshold, weighted by the recall that the threshold adds.

    `scores` are float [samples, classes], `has` bool of the same shape. Samples of equal score share a
    threshold, so that their order does not matter. Not a number for a class that no sample has.
    """
    return torch.stack([_of_class(s, h) for s, h in zip(scores.T, has.T, strict=True)])


def _of_class(scores: Tensor, has: Tensor) -> Tensor:
    ordered, places = scores.sort(descending=True)
    found = has[places].double().cumsum(dim=0)
    is_last_of_equals = torch.cat([ordered[1:] != ordered[:-1], torch.ones(1, dtype=torch.bool)])
    found = found[is_last_of_equals]
    taken = torch.arange(1, len(ordered) + 1, dtype=torch.float64)[is_last_of_equals]
    added = torch.diff(found, prepend=torch.zeros(1, dtype=torch.float64))
    return (added * found / taken).sum() / found[-1]
