"""The shape of a catalogue entry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from shared.domain.errors import Invalid
from shared.domain.module_tree import ModuleTree

CatalogTask = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that torchvision publishes, and the preprocessing that they expect.

    `resize_size` is the shorter side after resizing, `crop_size` the square cut from its middle, in pixels.
    `min_size` (height, width) is the smallest picture that torchvision states for them. `mean` and `std` are
    per channel, for values between 0 and 1. `categories` are the names of the classes in their order, empty
    for ImageNet's thousand. Segmentation's pictures are resized and not cropped: its `crop_size` is the same.
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
    categories: tuple[str, ...] = ()

    @property
    def sha256_prefix(self) -> str:
        """The first hexadecimal digits of the file's SHA-256, as its name tells them."""
        match = re.search(r"-([0-9a-f]{8,64})\.pth$", self.url)
        if match is None:
            raise ValueError(f"the name of the weights file {self.url} holds no hash")
        return match[1]


@dataclass(frozen=True)
class CatalogModel:
    """One torchvision network as it is built with the classes of its default weights.

    `image_size` (height, width in pixels) is what those expect, and what the tree is for. A network of
    `fixed_size` is built for one size and takes no other. One for segmentation has its auxiliary classifier,
    where torchvision makes one.
    """

    name: str
    task: CatalogTask
    image_size: tuple[int, int]
    fixed_size: bool
    weights: tuple[PublishedWeights, ...]
    tree_data: Mapping[str, Any]

    @cached_property
    def tree(self) -> ModuleTree:
        return ModuleTree.from_data(self.tree_data)

    def tree_at(self, image_size: tuple[int, int]) -> ModuleTree:
        """The tree as built for pictures of `image_size` (height, width in pixels).

        Raises `Invalid` where a network of fixed size cannot be built for it.
        """
        if not self.fixed_size or image_size == self.image_size:
            return self.tree
        is_vit = "encoder.pos_embedding" in self.tree.shapes
        step = self.tree.shapes["conv_proj.weight"][-1] if is_vit else self.image_size[0]
        height, width = image_size
        if height != width or height % step:
            raise _wrong_size(self.name, image_size, step)
        if not is_vit:
            return self.tree
        _, _, features = self.tree.shapes["encoder.pos_embedding"]
        return self.tree.with_shape("encoder.pos_embedding", (1, 1 + (height // step) ** 2, features))

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
            "task": self.task,
            "image_size": list(self.image_size),
            "fixed_size": self.fixed_size,
            "weights": [asdict(weights) for weights in self.weights],
            "tree": dict(self.tree_data),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> CatalogModel:
        height, width = data["image_size"]
        weights = tuple(_weights_from_data(entry) for entry in data["weights"])
        return cls(data["name"], data["task"], (height, width), data["fixed_size"], weights, data["tree"])


def _wrong_size(name: str, image_size: tuple[int, int], step: int) -> Invalid:
    height, width = image_size
    return Invalid(
        f"{name} cannot be built for pictures of {height}x{width}: "
        f"they must be square, with a side that is a multiple of {step}",
        param="preprocessing.image_size",
        code="image_size",
    )


def _weights_from_data(data: Mapping[str, Any]) -> PublishedWeights:
    lists = {field: tuple(data[field]) for field in ("min_size", "mean", "std", "categories")}
    return PublishedWeights(**{**data, **lists})
