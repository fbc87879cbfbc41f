"""A job's model put to use on this machine. Needs the extra `thaw[torch]`.

from thaw.torch import load_model, predict

model = load_model(Path("ftjob-123"))            # a folder that `thaw download` wrote
print(predict(model, [Path("scan.png")])[0].label)
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from thaw.answers import Answer, Labels, Mask, Picture, Prediction, answer_of, main_output
from thaw.delta import CARD
from thaw.errors import UsageError
from thaw.packing import file_sha256
from thaw.torchvision_compat import import_torchvision

__all__ = [
    "Answer",
    "Labels",
    "Mask",
    "Model",
    "Picture",
    "Prediction",
    "build",
    "load_model",
    "predict",
    "read_image",
]

_BATCH = 32


@dataclass(frozen=True)
class Model:
    """A network in eval mode, and what its input and output mean. `card` is model.json."""

    network: nn.Module
    class_names: tuple[str, ...]
    card: Mapping[str, Any]


def load_model(folder: Path) -> Model:
    """The model in a folder of artifacts. Raises UsageError where it is damaged, or cannot be built here."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        weights = folder / card["weights_file"]
        if file_sha256(weights) != card["weights_sha256"]:
            raise UsageError(f"{weights} is not the file that {CARD} describes; download it again")
        network = build(card["architecture"], card["preprocessing"])
        network.load_state_dict(_with_versions(load_file(weights), network), strict=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"{folder}: the model cannot be loaded: {error}") from error
    return Model(network.eval(), tuple(card["class_names"]), card)


def predict(model: Model, images: Sequence[Path]) -> list[Answer]:
    """What the model says of each picture: a Prediction, or what its task answers with.

    Raises UsageError for a picture that cannot be read.
    """
    if model.card.get("task") == "custom":
        raise UsageError(
            "a model with training steps of its own has no answer that could be told in words; "
            "`load_model` gives its network, whose own methods say what it can do"
        )
    found: list[Answer] = []
    for start in range(0, len(images), _BATCH):
        pictures = [_read(path, model.card["preprocessing"]) for path in images[start : start + _BATCH]]
        batch = torch.stack([picture for picture, _ in pictures])
        with torch.inference_mode():
            output = main_output(model.network(batch))
        for (picture, size), of_one in zip(pictures, output, strict=True):
            found.append(answer_of(model.card, picture, of_one, size))
    return found


def read_image(path: Path, preprocessing: Mapping[str, Any]) -> Tensor:
    """The picture as the model was trained to see it: float32 [3, height, width]."""
    return _read(path, preprocessing)[0]


def _read(path: Path, preprocessing: Mapping[str, Any]) -> tuple[Tensor, tuple[int, int]]:
    """(the picture as the model is to see it, its own height and width)"""
    try:
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(_eight_bit(image).convert("RGB"))).permute(2, 0, 1)
    except Exception as error:  # broken files make Pillow's plugins raise nearly anything
        raise UsageError(f"{path} is no picture that can be read: {error}") from error
    size = (preprocessing["height"], preprocessing["width"])
    resized = interpolate(pixels.unsqueeze(0), size=size, mode="bilinear", antialias=True)[0]
    mean, std = (torch.tensor(preprocessing[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (resized.float() / 255 - mean) / std, (pixels.shape[1], pixels.shape[2])


def build(architecture: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> nn.Module:
    """The network without its weights."""
    network = bare_network(architecture, preprocessing, init_weights=False)
    for path in architecture["head"]:
        layer = network.get_submodule(path)
        if _n_outputs(layer) != architecture["num_classes"]:
            network.set_submodule(path, with_outputs(layer, architecture["num_classes"]))
    return network


def bare_network(
    architecture: Mapping[str, Any], preprocessing: Mapping[str, Any], *, init_weights: bool
) -> nn.Module:
    """The network with the head that it comes with; `init_weights` is for those that take long to do it."""
    name = architecture["name"]
    if architecture["source"] == "torchvision":
        return _torchvision(name, preprocessing, init_weights=init_weights)
    return _registered(name, architecture.get("version"))


def with_outputs(layer: nn.Module, outputs: int) -> nn.Module:
    """A fresh layer of the same kind with so many outputs; what can have none is kept."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs, bias=layer.bias is not None)
    if isinstance(layer, nn.Conv2d):
        geometry = {
            name: getattr(layer, name)
            for name in ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        }
        return nn.Conv2d(layer.in_channels, outputs, bias=layer.bias is not None, **geometry)
    return layer


def _torchvision(name: str, preprocessing: Mapping[str, Any], *, init_weights: bool) -> nn.Module:
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"transform_input": True, "init_weights": init_weights}
    elif name.startswith("vit_"):
        options = {"image_size": preprocessing["height"]}
    elif name == "maxvit_t":
        options = {"input_size": (preprocessing["height"], preprocessing["width"])}
    elif name.startswith(("fcn_", "deeplabv3_")):
        # Their weights hold the auxiliary classifier too. The backbone's own would be fetched.
        options = {"weights_backbone": None, "aux_loss": True}
    elif name.startswith("lraspp_"):
        options = {"weights_backbone": None}
    network: nn.Module = import_torchvision().models.get_model(name, weights=None, **options)
    return network


def _registered(name: str, version: str | None) -> nn.Module:
    offered = list(entry_points(group="thaw.models").select(name=name))
    if not offered:
        raise UsageError(
            f"the model {name!r} (version {version}) is registered by a package that is not installed here"
        )
    network: nn.Module = offered[0].load()()
    return network


def _with_versions(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state with the versions of its modules, which MNASNet asks for and safetensors does not keep."""
    versioned = OrderedDict(state)
    versioned._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]  # torch's own place
    return versioned


def _n_outputs(layer: nn.Module) -> int | None:
    found: int | None = getattr(layer, "out_features", getattr(layer, "out_channels", None))
    return found


def _eight_bit(image: Image.Image) -> Image.Image:
    """Sixteen-bit greys scaled to eight: Pillow's own conversion cuts them off at 255."""
    if image.mode == "F":
        raise ValueError("its values are floating-point numbers without a known range; save it as 8 bit")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.array(image).clip(0, 65_535) >> 8).astype(np.uint8))
