"""The task of a network that is trained by its own steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class OwnSteps:
    """The network judges itself: its steps' losses are all that is known of it, and none is the main one.

    `target` are the numbers of the pictures' classes, int64 [batch], where the data set has classes, one for
    each picture; else it is empty, [batch, 0].
    """

    figures: ClassVar[tuple[str, ...]] = ()
    output_in_words: ClassVar[str] = (
        "what the network's own forward returns; Thaw trains it by its training steps"
    )

    def target(self, inputs: Tensor, loaded: Tensor) -> Tensor:
        return loaded.to(inputs.device, non_blocking=True)
