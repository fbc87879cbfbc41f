"""What networks return, taken apart: the answer, and what auxiliary classifiers add while training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from shared.domain.errors import Invalid

# The weights that the networks' papers give their auxiliary losses.
AUXILIARY_WEIGHTS = {"GoogLeNetOutputs": 0.3, "InceptionOutputs": 0.4}


def main_logits(output: Any) -> Tensor:
    """The class scores in what a network returned, without its auxiliary ones."""
    if isinstance(output, Tensor):
        return output
    if type(output).__name__ in AUXILIARY_WEIGHTS:
        logits: Tensor = output.logits
        return logits
    raise Invalid(
        f"the model returned a {type(output).__name__}; it must return one tensor, [batch, num_classes]",
        param="model",
        code="bad_model_output",
    )


def auxiliary_logits(output: Any) -> Iterator[tuple[float, Tensor]]:
    """Each auxiliary classifier's scores with the weight of its loss; nothing for most networks."""
    weight = AUXILIARY_WEIGHTS.get(type(output).__name__)
    if weight is not None:
        yield from ((weight, scores) for scores in output[1:] if scores is not None)


def training_loss(output: Any, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The loss of the main scores, plus the weighted losses of the auxiliary ones where there are any."""
    loss = loss_of(main_logits(output))
    for weight, scores in auxiliary_logits(output):
        loss = loss + weight * loss_of(scores)
    return loss
