"""What freeze specs mean on a live network, worked out with torch alone.

Nothing of the freeze language is used here: plain loops over modules and parameters say what each spec
freezes, which modules are still, and which buffers those hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# A prime: no width of any network is one by chance, so the layers of this width are the heads.
NUM_CLASSES = 997

# The block before the head in each family of networks: the last registered path that fits.
LAST_BLOCKS = {
    "(wide_)?resnex?t": r"layer4\.\d+",
    "alexnet": r"classifier\.4",
    "convnext": r"classifier\.0",
    "deeplabv3": r"classifier\.2",
    "densenet": r"features\.norm5",
    "efficientnet": r"features\.\d",
    "fcn": r"classifier\.1",
    "googlenet": "inception5b",
    "inception": "Mixed_7c",
    "lraspp": r"classifier\.scale\.1",
    "maxvit": r"classifier\.3",
    "mnasnet": r"layers\.15",
    "mobilenet_v2": r"features\.\d+",
    "mobilenet_v3": r"classifier\.0",
    "regnet": r"trunk_output\.block4\.block4-\d+",
    "shufflenet": r"conv5\.1",
    "squeezenet": r"features\.12",
    "swin": "norm",
    "vgg": r"classifier\.3",
    "vit": r"encoder\.ln",
}


@dataclass(frozen=True)
class Spec:
    """A freeze spec as a person writes it. `frozen(name, model)` gives the parameters that it means."""

    label: str
    freeze: Any
    frozen: Callable[[str, nn.Module], set[str]]


@dataclass(frozen=True)
class Meaning:
    """What a spec comes to. Names are those of `named_parameters()` and `named_buffers()`, in their order."""

    frozen: tuple[str, ...]
    trainable: tuple[str, ...]
    still: tuple[str, ...]
    still_buffers: tuple[str, ...]
    aliases: dict[str, str]


def meaning(model: nn.Module, frozen: set[str]) -> Meaning:
    """What follows from freezing the parameters called `frozen`, which holds all names of each."""
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    fixed = {id(parameter) for name, parameter in named(model) if name in frozen}
    still = tuple(path for path, _ in model.named_modules() if _is_still(model, path, fixed))
    return Meaning(
        frozen=tuple(name for name, _ in model.named_parameters() if name in frozen),
        trainable=tuple(name for name, _ in model.named_parameters() if name not in frozen),
        still=still,
        still_buffers=tuple(
            f"{path}.{name}".removeprefix(".")
            for path in still
            for name, _ in model.get_submodule(path).named_buffers(recurse=False)
        ),
        aliases={name: canonical[id(p)] for name, p in named(model) if canonical[id(p)] != name},
    )


def last_block(name: str, model: nn.Module) -> str:
    """The path of the block before the head of torchvision's network `name`."""
    (expression,) = [fits for family, fits in LAST_BLOCKS.items() if re.match(family, name)]
    return [path for path, _ in model.named_modules() if re.fullmatch(expression, path)][-1]


def called_after(model: nn.Module, block: str, inputs: torch.Tensor) -> list[str]:
    """The modules that hold parameters and are first called after the block, save for its own and the heads.

    An auxiliary classifier for segmentation is called last, and belongs to no block.
    """
    calls: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, _inputs, path=path: calls.append(path))
        for path, module in model.named_modules()
    ]
    with torch.no_grad():
        model.eval()(inputs)
    for hook in hooks:
        hook.remove()
    order = list(dict.fromkeys(calls))
    at_the_head = {name.rpartition(".")[0] for name in head(model)}
    elsewhere = {name.rpartition(".")[0] for name, _ in named(model)} - at_the_head
    later = order[order.index(block) + 1 :]
    beside = (f"{block}.", "aux_classifier.")
    return [path for path in later if path in elsewhere and not path.startswith(beside)]


def named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Each parameter under every name that it has."""
    yield from model.named_parameters(remove_duplicate=False)


def head(model: nn.Module) -> set[str]:
    return {name for name, parameter in named(model) if parameter.shape[:1] == (NUM_CLASSES,)}


def held_by(model: nn.Module, chosen: Callable[[str, nn.Module], bool]) -> set[str]:
    """The parameters that a chosen module holds at any depth, under all of their names."""
    held = {id(p) for path, m in model.named_modules() if chosen(path, m) for p in m.parameters()}
    return {name for name, parameter in named(model) if id(parameter) in held}


def called(model: nn.Module, fits: Callable[[str], bool]) -> set[str]:
    """The parameters one of whose names fits, under all of their names."""
    meant = {id(parameter) for name, parameter in named(model) if fits(name)}
    return {name for name, parameter in named(model) if id(parameter) in meant}


def _is_still(model: nn.Module, path: str, fixed: set[int]) -> bool:
    """All parameters below it are fixed; one without any is as its nearest ancestor that has some."""
    while path and not any(True for _ in model.get_submodule(path).parameters()):
        path = path.rpartition(".")[0]
    held = [id(parameter) for parameter in model.get_submodule(path).parameters()]
    return bool(held) and fixed.issuperset(held)


def _all_but_the_head(name: str, model: nn.Module) -> set[str]:
    return {name for name, _ in named(model)} - head(model)


def _last_block(name: str, model: nn.Module) -> set[str]:
    block = last_block(name, model)
    return held_by(model, lambda path, _: path == block)


def _batch_norms(name: str, model: nn.Module) -> set[str]:
    return held_by(model, lambda _, module: type(module).__name__ == "BatchNorm2d")


def _with_conv_in_the_name(name: str, model: nn.Module) -> set[str]:
    return called(model, lambda text: "conv" in text)


def _with_a_part_that_ends_in_1(name: str, model: nn.Module) -> set[str]:
    return called(model, lambda text: any(len(p) > 1 and p.endswith("1") for p in text.split(".")))


SPECS = (
    Spec("backbone", "backbone", _all_but_the_head),
    Spec("last:1", ["last:1"], _last_block),
    Spec("type:BatchNorm2d", ["type:BatchNorm2d"], _batch_norms),
    Spec("name:conv", ["name:conv"], _with_conv_in_the_name),
    Spec("**.?*1.**", ["**.?*1.**"], _with_a_part_that_ends_in_1),
)
