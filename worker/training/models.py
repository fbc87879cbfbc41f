"""Builds networks, gives them new heads and loads weights into them."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from shared import catalog
from shared.domain.errors import Invalid
from shared.domain.near_names import nearest
from worker.registered import ENTRY_POINTS
from worker.training.network_tree import describe_module
from worker.training.torchvision_compat import import_torchvision

__all__ = [
    "build",
    "describe_module",
    "head_paths",
    "load_weights",
    "own_head",
    "present_name",
    "read_state",
    "registered_builder",
    "replace_head",
    "segmentation_options",
]

Source = Literal["torchvision", "registered"]

# Published DenseNet files hold names from before torch forbade dots in module names: `norm.1` is `norm1` now.
_OLD_DENSENET_NAME = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_\w+))$"
)


def build(
    name: str,
    source: Source,
    num_classes: int | None = None,
    head_module: str | None = None,
    image_size: tuple[int, int] | None = None,
) -> nn.Module:
    """A freshly initialised network.

    `num_classes` left out keeps the head as the network has it; `head_module` names the head where it is not
    the network's own. `image_size` (height, width in pixels) is for networks that are built for one size.

    torchvision's segmentation networks answer with a dict: "out" holds the class scores of every pixel,
    [batch, classes, height, width] at the size of the pictures, and "aux" the auxiliary classifier's, of the
    same shape and in eval mode too, for all but LRASPP.
    """
    model = _torchvision(name, image_size) if source == "torchvision" else registered_builder(name)()
    if num_classes is not None:
        replace_head(model, head_paths(model, name, source, head_module), num_classes)
    return model


def head_paths(
    model: nn.Module, name: str, source: Source, head_module: str | None = None
) -> tuple[str, ...]:
    """The modules that a change of classes replaces, the main one first."""
    if source == "torchvision":
        tree = catalog.get(name).tree
    else:
        tree = describe_module(model, own_head(registered_builder(name)))
    return (tree.with_head([head_module]) if head_module else tree).head


def replace_head(model: nn.Module, paths: Sequence[str], num_classes: int) -> None:
    """Puts a fresh layer with `num_classes` outputs in the place of each of `paths`.

    It has the old one's kind, device, type and bias. Raises `Invalid` for other kinds and for shared layers.
    """
    tree = describe_module(model, paths)
    if not paths:
        raise Invalid("this model has no head that could be replaced: name one", param="head.module")
    for path in tree.head:
        model.set_submodule(path, _with_outputs(model.get_submodule(path), num_classes))


def registered_builder(name: str) -> Callable[[], nn.Module]:
    """The function that builds the registered model `name`.

    Its optional attributes `head` (a module path), `image_size` (height, width) and `task` say more of the
    model. One whose task is "custom" offers `training_steps` (shared/domain/training_steps.py).
    """
    offered = entry_points(group=ENTRY_POINTS)
    found = offered.select(name=name)
    if not found:
        near = ", ".join(nearest(name, offered.names)) or "none"
        raise Invalid(
            f"no model {name!r} is registered here; registered are {near}",
            param="model",
            code="model_not_installed",
        )
    if len(found) > 1:
        offering = ", ".join(sorted(entry.value for entry in found))
        raise Invalid(f"the model {name!r} is registered {len(found)} times, by {offering}", param="model")
    builder: Callable[[], nn.Module] = next(iter(found)).load()
    return builder


def own_head(builder: Callable[[], nn.Module]) -> str | Sequence[str] | None:
    """What a registered model's `head` says; none where its task has no head, None where it is left out."""
    has_none = getattr(builder, "task", None) in ("reconstruction", "custom")
    head: str | Sequence[str] | None = getattr(builder, "head", () if has_none else None)
    return head


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a whole state, strictly: a `.safetensors` file, or a file that torchvision published (`.pth`).

    A vision transformer's position embedding is stretched to the model's picture size; the rest is as stored.
    """
    try:
        state = _with_present_names(read_state(path))
        if path.suffix == ".safetensors":
            state = _with_versions(state, model)
        model.load_state_dict(_fitted(state, model), strict=True)
    except (RuntimeError, SafetensorError, UnpicklingError) as error:
        raise Invalid(f"the weights in {path.name} do not fit the model: {error}", param="weights") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of one that torchvision published, on the CPU, as stored."""
    if path.suffix == ".safetensors":
        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def present_name(stored: str) -> str:
    """What the networks of today call the tensor that a published file calls `stored`."""
    return _OLD_DENSENET_NAME.sub(r"\1\2", stored)


def segmentation_options(name: str) -> dict[str, Any]:
    """What a builder is told beside the weights: to fetch none for the backbone.

    The auxiliary classifier is built where the network has one: its published weights hold that too.
    """
    options: dict[str, Any] = {"weights_backbone": None}
    return options if name.startswith("lraspp") else {**options, "aux_loss": True}


def _torchvision(name: str, image_size: tuple[int, int] | None) -> nn.Module:
    known = catalog.get(name)
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # As with published weights: the input is normalised as for all others, and turned back inside.
        options = {"transform_input": True, "init_weights": True}
    elif known.task == "segmentation":
        options = segmentation_options(name)
    elif known.fixed_size:
        size = image_size or known.image_size
        known.tree_at(size)
        options = {"image_size": size[0]} if name.startswith("vit_") else {"input_size": size}
    model: nn.Module = import_torchvision().models.get_model(name, weights=None, **options)
    return model


def _with_outputs(layer: nn.Module, outputs: int) -> nn.Module:
    kept: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs, bias=layer.bias is not None, **kept)
    if isinstance(layer, nn.Conv2d):
        geometry = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        kept |= {name: getattr(layer, name) for name in geometry}
        return nn.Conv2d(layer.in_channels, outputs, bias=layer.bias is not None, **kept)
    raise Invalid(f"the head must be a Linear or a Conv2d, not a {type(layer).__name__}", param="head.module")


def _fitted(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state, its position embedding interpolated where the model is built for another picture size."""
    old, new = state.get("encoder.pos_embedding"), dict(model.named_parameters()).get("encoder.pos_embedding")
    if old is None or new is None or old.shape == new.shape:
        return state
    interpolate = import_torchvision().models.vision_transformer.interpolate_embeddings
    fitted: dict[str, Tensor] = interpolate(model.image_size, model.patch_size, OrderedDict(state))
    return fitted


def _with_present_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name in list(state):
        if (present := present_name(name)) != name:
            state[present] = state.pop(name)
    return state


def _with_versions(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state with the versions of its modules, which MNASNet asks for and safetensors does not keep.

    Such a file comes from a network of today: its versions are the model's own.
    """
    versioned = OrderedDict(state)
    versioned._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]  # torch's own place
    return versioned
