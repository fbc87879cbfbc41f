"""From what a person says of pictures to every size and number that a run needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from api.services.base_networks import BaseNetwork
from shared.domain.errors import Invalid
from shared.domain.resolved import PublishedWeights, ResolvedPreprocessing, Weights
from shared.domain.spec import AnyPreprocessing, Normalize

# Mean and standard deviation of each channel, for values from 0 to 1.
Normalisation = tuple[list[float], list[float]]
NORMALISATION: Mapping[Normalize, Normalisation] = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "none": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
}


def resolve_preprocessing(
    asked: AnyPreprocessing,
    base: BaseNetwork,
    weights: Weights,
    *,
    normalisation: Normalisation,
    augment: Literal["none", "flip", "crop_flip"] = "none",
) -> ResolvedPreprocessing:
    """`base` is built for the size asked for. Raises Invalid for one that does not suit `weights`."""
    if base.image_size is None:
        raise Invalid(
            f"the registered model {base.architecture.name!r} does not say its picture size; give one, "
            "as a side or as [height, width]",
            param="preprocessing.image_size",
        )
    height, width = base.image_size
    _check_least_size(base, weights, height, width)
    mean, std = normalisation
    return ResolvedPreprocessing(
        height=height,
        width=width,
        mean=mean,
        std=std,
        augment=augment,
        max_unreadable_fraction=asked.max_unreadable_fraction,
    )


def _check_least_size(base: BaseNetwork, weights: Weights, height: int, width: int) -> None:
    least = _least_size(base, weights)
    if height < least[0] or width < least[1]:
        name, stated = base.architecture.name, f"{least[0]}x{least[1]}"
        raise Invalid(
            f"{name} needs pictures of at least {stated}, not {height}x{width}",
            param="preprocessing.image_size",
        )


def _least_size(base: BaseNetwork, weights: Weights) -> tuple[int, int]:
    """(height, width) that the published weights state, else what the network itself can take.

    A minimum that equals the weights' own crop is about those weights, and says nothing of the network.
    """
    published = base.known.weights if base.known else ()
    if isinstance(weights, PublishedWeights):
        stated = [known.min_size for known in published if known.name == weights.name]
    else:
        stated = [known.min_size for known in published if max(known.min_size) < known.crop_size]
    return min(stated, default=(1, 1))
