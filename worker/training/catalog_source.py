"""Reads torchvision's classification models for the catalogue: each one's tree, blocks, sizes and weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from shared.catalog import CatalogModel, PublishedWeights
from shared.domain.module_outputs import Outputs
from worker.training.module_outputs import record_outputs, with_classes_at
from worker.training.network_tree import describe_module
from worker.training.torchvision_compat import import_torchvision

# torchvision's own containers: their children are the steps of the network.
OPENED = ("AnyStage", "Encoder", "MaxVitBlock", "_DenseBlock")


def model_names() -> list[str]:
    models = import_torchvision().models
    return list(models.list_models(module=models))


def read_model(name: str) -> CatalogModel:
    """What torchvision builds under `name`, at the size that its default weights expect."""
    enum = import_torchvision().models.get_model_weights(name)
    weights = tuple(
        _published(entry, is_default=entry is enum.DEFAULT) for entry in enum if _classifies(entry)
    )
    side = next(entry.crop_size for entry in weights if entry.is_default)
    model = _on_meta(name, num_classes=1000, side=side)
    tree = describe_module(
        model,
        head=_head(name, model, side),
        example=torch.empty(2, 3, side, side, device="meta"),
        opened=OPENED,
    )
    return CatalogModel(name, (side, side), _fixed_size_option(name) is not None, weights, tree.to_data())


def read_outputs(name: str) -> Outputs:
    """What the modules put out for pictures of the size that the default weights expect."""
    side = import_torchvision().models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    networks = (_on_meta(name, num_classes=n, side=side) for n in (1000, 7))
    return with_classes_at(*(record_outputs(network, (side, side), "meta") for network in networks))


def _head(name: str, model: nn.Module, side: int) -> list[str]:
    """The modules whose tensors depend on the number of classes, the last registered (the main one) first."""
    other = dict(_on_meta(name, num_classes=7, side=side).named_parameters())
    changed = [
        p.rpartition(".")[0] for p, tensor in model.named_parameters() if tensor.shape != other[p].shape
    ]
    main, *auxiliary = reversed(dict.fromkeys(changed))
    return [main, *reversed(auxiliary)]


def _on_meta(name: str, num_classes: int, side: int) -> nn.Module:
    option = _fixed_size_option(name)
    options = {option: side if option == "image_size" else (side, side)} if option else {}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    with _EmptyOnMeta():
        model: nn.Module = import_torchvision().models.get_model(
            name, weights=None, num_classes=num_classes, **options
        )
    return model.to("meta")


class _EmptyOnMeta(TorchFunctionMode):
    """Puts uninitialised tensors on the meta device, and so nearly every parameter. Other tensors stay real:
    some networks compute their widths with them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        placed = {**(kwargs or {}), "device": "meta"} if func is torch.empty else kwargs or {}
        return func(*args, **placed)


def _fixed_size_option(name: str) -> str | None:
    """The builder's argument for the size of pictures, for networks that are built for one size."""
    if name.startswith("vit_"):
        return "image_size"
    return "input_size" if name.startswith("maxvit_") else None


def _classifies(entry: Any) -> bool:
    """False for the one file whose classifier holds no values: vgg16's features alone."""
    return entry.meta["categories"] is not None


def _published(entry: Any, *, is_default: bool) -> PublishedWeights:
    preset = entry.transforms()
    height, width = entry.meta["min_size"]
    return PublishedWeights(
        name=entry.name,
        url=entry.url,
        is_default=is_default,
        num_classes=len(entry.meta["categories"]),
        resize_size=preset.resize_size[0],
        crop_size=preset.crop_size[0],
        min_size=(height, width),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
