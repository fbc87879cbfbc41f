"""Reads torchvision's networks for the catalogue: each one's tree, blocks, sizes, weights and flow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from shared.catalog import CatalogModel, CatalogTask, PublishedWeights
from shared.domain.flow import Flow
from shared.domain.module_outputs import Outputs
from worker.training.flow_recording import record_flow
from worker.training.models import segmentation_options
from worker.training.module_outputs import record_outputs, with_classes_at
from worker.training.network_tree import describe_module
from worker.training.torchvision_compat import import_torchvision

# torchvision's own containers: their children are the steps of the network.
OPENED = (
    *("AnyStage", "Encoder", "MaxVitBlock", "_DenseBlock"),
    *("IntermediateLayerGetter", "FCNHead", "DeepLabHead", "LRASPPHead"),
)
TASKS: tuple[CatalogTask, ...] = ("classification", "segmentation")


def model_names() -> list[str]:
    return [name for task in TASKS for name in _names(task)]


def read_model(name: str) -> CatalogModel:
    """What torchvision builds under `name`, at the size that its default weights expect."""
    weights = _all_weights(name)
    default = _default_weights(name)
    side = default.crop_size
    model = _on_meta(name, default.num_classes, side)
    tree = describe_module(
        model,
        head=_head(name, model, side),
        example=torch.empty(2, 3, side, side, device="meta"),
        opened=OPENED,
    )
    tree = replace(tree, blocks=tuple(block for block in tree.blocks if not _is_auxiliary(block)))
    fixed_size = _fixed_size_option(name) is not None
    return CatalogModel(name, task_of(name), (side, side), fixed_size, weights, tree.to_data())


def read_flow(name: str) -> Flow:
    """How data flows through the network, for pictures of the size that its default weights expect."""
    default = _default_weights(name)
    side = default.crop_size
    return record_flow(lambda size: _on_meta(name, default.num_classes, size[0]), (side, side))


def read_outputs(name: str) -> Outputs:
    """What the modules put out for pictures of the size that the default weights expect."""
    default = _default_weights(name)
    side = default.crop_size
    networks = (_on_meta(name, num_classes, side) for num_classes in (default.num_classes, 7))
    return with_classes_at(*(record_outputs(network, (side, side), "meta") for network in networks))


def task_of(name: str) -> CatalogTask:
    return next(task for task in TASKS if name in _names(task))


def _names(task: CatalogTask) -> list[str]:
    models = import_torchvision().models
    return list(models.list_models(module=models.segmentation if task == "segmentation" else models))


def _head(name: str, model: nn.Module, side: int) -> list[str]:
    """The modules whose tensors depend on the number of classes: last the auxiliary ones, as registered.

    Of several main ones the last registered stands first.
    """
    other = dict(_on_meta(name, num_classes=7, side=side).named_parameters())
    changed = [
        p.rpartition(".")[0] for p, tensor in model.named_parameters() if tensor.shape != other[p].shape
    ]
    paths = list(dict.fromkeys(changed))
    main = [path for path in reversed(paths) if not _is_auxiliary(path)]
    return main + [path for path in paths if _is_auxiliary(path)]


def _is_auxiliary(path: str) -> bool:
    """Whether it belongs to a classifier that only training has a use for: `aux1`, `AuxLogits`."""
    return path.lower().startswith("aux")


def _on_meta(name: str, num_classes: int, side: int) -> nn.Module:
    """The network without memory. One for segmentation has its auxiliary classifier, as its weights have."""
    option = _fixed_size_option(name)
    options: dict[str, Any] = {option: side if option == "image_size" else (side, side)} if option else {}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    if task_of(name) == "segmentation":
        options |= segmentation_options(name)
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


def _has_classes(entry: Any) -> bool:
    """False for the one file whose classifier holds no values: vgg16's features alone."""
    return entry.meta["categories"] is not None


def _all_weights(name: str) -> tuple[PublishedWeights, ...]:
    enum = import_torchvision().models.get_model_weights(name)
    return tuple(
        _published(entry, task_of(name), is_default=entry is enum.DEFAULT)
        for entry in enum
        if _has_classes(entry)
    )


def _default_weights(name: str) -> PublishedWeights:
    return next(weights for weights in _all_weights(name) if weights.is_default)


def _published(entry: Any, task: CatalogTask, *, is_default: bool) -> PublishedWeights:
    preset = entry.transforms()
    height, width = entry.meta["min_size"]
    resized = preset.resize_size[0]
    categories = tuple(entry.meta["categories"])
    return PublishedWeights(
        name=entry.name,
        url=entry.url,
        is_default=is_default,
        num_classes=len(categories),
        resize_size=resized,
        crop_size=resized if task == "segmentation" else preset.crop_size[0],
        min_size=(height, width),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        categories=categories if task == "segmentation" else (),
    )
