"""What is saved of a module's output: all of it, its mean over places, or one vector.

Which dimension holds the features is no property of a tensor. Convolutional networks put them second; linear
layers, layer norms and windowed attention put them last. The module's class says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from shared.domain.activations import ActivationsWanted, ModuleActivations
from shared.domain.module_tree import join

# Their outputs have the features last; torchvision's own names among them are those of Swin and MaxViT.
FEATURES_LAST = frozenset(
    {
        *("Linear", "LayerNorm", "Embedding", "MultiheadAttention", "MLP"),
        *("SwinTransformerBlock", "SwinTransformerBlockV2", "PatchMerging", "PatchMergingV2"),
        *("ShiftedWindowAttention", "ShiftedWindowAttentionV2"),
        *("RelativePositionalMultiHeadAttention", "WindowPartition", "SwapAxes"),
    }
)
# They leave each place as it is, so their output is laid out as their input was.
KEEPS_LAYOUT = frozenset(
    {
        *("ReLU", "ReLU6", "LeakyReLU", "ELU", "GELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid"),
        *("Sigmoid", "Tanh", "Softplus", "PReLU", "Identity", "StochasticDepth", "Dropout"),
    }
)
# MaxViT's own order, which its attention layers do not tell by being Sequentials.
RUN_BEFORE = {
    ("PartitionAttentionLayer", "partition_swap"): "partition_op",
    ("PartitionAttentionLayer", "departition_swap"): "mlp_layer",
}


def described(
    model: nn.Module, path: str, output_shape: Sequence[int], wanted: ActivationsWanted
) -> ModuleActivations:
    """What is to be saved of the module at `path`, whose output has `output_shape` for each sample."""
    means = mean_over(model, path, output_shape) if wanted.pool == "mean" else []
    shape = [side for place, side in enumerate(output_shape) if place not in means]
    return ModuleActivations(
        class_name=type(model.get_submodule(path)).__name__,
        output_shape=list(output_shape),
        shape=[prod(shape)] if wanted.output == "parquet" else shape,
        dtype=wanted.dtype,
        mean_over=means,
    )


def mean_over(model: nn.Module, path: str, output_shape: Sequence[int]) -> list[int]:
    """The dimensions of a sample's output, counted from 0, that are averaged: all but the features'."""
    match len(output_shape):
        case 0 | 1:
            return []
        case 2:
            return [0]  # tokens
        case 3:
            return [0, 1] if _features_are_last(model, path) else [1, 2]
        case _:
            raise ValueError(f"an output of shape {list(output_shape)} has no mean that says itself")


def reduced(output: Tensor, saved: ModuleActivations) -> Tensor:
    """A batch of outputs as it is saved: [batch, *saved.shape]."""
    if saved.mean_over:
        output = output.float().mean(dim=[place + 1 for place in saved.mean_over])
    return output.reshape(len(output), *saved.shape)


def _features_are_last(model: nn.Module, path: str) -> bool:
    module = model.get_submodule(path)
    told = _told_by(module)
    if told is not None:
        return told
    before = _before(model, path) if _keeps_layout(module) else None
    return before is not None and _features_are_last(model, before)


def _told_by(module: nn.Module) -> bool | None:
    """Whether the features are last, where the module's class or its last telling child says so."""
    name = type(module).__name__
    if name in FEATURES_LAST:
        return True
    if name == "Permute":
        dims: Sequence[int] = getattr(module, "dims", ())
        return bool(dims) and dims[-1] == 1
    telling = [child for child in module.children() if not _keeps_layout(child)]
    return bool(_told_by(telling[-1])) if isinstance(module, nn.Sequential) and telling else None


def _keeps_layout(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential):
        return all(_keeps_layout(child) for child in module)
    return type(module).__name__ in KEEPS_LAYOUT


def _before(model: nn.Module, path: str) -> str | None:
    """A module whose output is laid out as the input of the one at `path`; None where none is known."""
    if not path:
        return None
    parent_path, _, name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    if known := RUN_BEFORE.get((type(parent).__name__, name)):
        return join(parent_path, known)
    if not isinstance(parent, nn.Sequential):
        return parent_path if type(parent).__name__ in FEATURES_LAST else None
    names = [child_name for child_name, _ in parent.named_children()]
    place = names.index(name)
    return join(parent_path, names[place - 1]) if place else _before(model, parent_path)
