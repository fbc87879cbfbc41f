"""The shape of a catalogue entry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from shared.domain.errors import Invalid
from shared.domain.module_tree import ModuleTree


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that torchvision publishes, and the preprocessing that they expect.

    `resize_size` is the shorter side after resizing, `crop_size` the square cut from its middle, in pixels.
    `min_size` (height, width) is the smallest picture that torchvision states for them. `mean` and `std` are
    per channel, for values between 0 and 1.
    """

    name: str
    url: str
    is_default: bool
    num_classes: int
    resize_size: int
    crop_size: int
    min_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str

    @property
    def sha256_prefix(self) -> str:
        """The first hexadecimal digits of the file's SHA-256, as its name tells them."""
        match = re.search(r"-([0-9a-f]{8,64})\.pth$", self.url)
        if match is None:
            raise ValueError(f"the name of the weights file {self.url} holds no hash")
        return match[1]


@dataclass(frozen=True)
class CatalogModel:
    """One torchvision network as it is built with 1,000 classes.

    `image_size` (height, width in pixels) is what its default weights expect, and what the tree is for. A
    network of `fixed_size` is built for one size and takes no other.
    """

    name: str
    image_size: tuple[int, int]
    fixed_size: bool
    weights: tuple[PublishedWeights, ...]
    tree_data: Mapping[str, Any]

    @cached_property
    def tree(self) -> ModuleTree:
        return ModuleTree.from_data(self.tree_data)

    def published(self, name: str) -> PublishedWeights:
        """The weights called `name`, or the default ones for "DEFAULT"."""
        for weights in self.weights:
            if weights.name == name or (name == "DEFAULT" and weights.is_default):
                return weights
        known = ", ".join(["DEFAULT", "none", *(weights.name for weights in self.weights)])
        raise Invalid(
            f"{self.name} has no weights {name!r}; it has {known}", param="weights", code="unknown_weights"
        )

    def to_data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "image_size": list(self.image_size),
            "fixed_size": self.fixed_size,
            "weights": [asdict(weights) for weights in self.weights],
            "tree": dict(self.tree_data),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> CatalogModel:
        height, width = data["image_size"]
        weights = tuple(_weights_from_data(entry) for entry in data["weights"])
        return cls(data["name"], (height, width), data["fixed_size"], weights, data["tree"])


def _weights_from_data(data: Mapping[str, Any]) -> PublishedWeights:
    lists = {field: tuple(data[field]) for field in ("min_size", "mean", "std")}
    return PublishedWeights(**{**data, **lists})
