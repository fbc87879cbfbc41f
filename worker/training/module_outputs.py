"""Records what every module of a live network puts out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from shared.domain.module_outputs import ModuleOutput, Outputs
from worker.training.eval_mode import in_eval_mode
from worker.training.extraction_pooling import mean_over
from worker.training.extraction_taps import Taps, in_words


def record_outputs(model: nn.Module, image_size: tuple[int, int], device: str = "cpu") -> Outputs:
    """From forwards of two batches, of 3 and of 2 pictures of `image_size` (height, width).

    Random generators and buffers are for the caller to save; `model` is left in the mode that it was in.
    """
    with in_eval_mode(model):
        more, fewer = (_outputs(model, torch.zeros(n, 3, *image_size, device=device)) for n in (3, 2))
    modules = {path: _recorded(model, path, more[path], fewer.get(path, [])) for path in more}
    return Outputs(image_size, modules)


def with_classes_at(outputs: Outputs, other: Outputs) -> Outputs:
    """`outputs`, told where the number of classes stands in them by the same network with another number."""
    modules = {}
    for path, one in outputs.modules.items():
        of_other = other.modules[path].shape
        differing = [
            place
            for place, sides in enumerate(zip(one.shape or (), of_other or (), strict=False))
            if sides[0] != sides[1]
        ]
        modules[path] = replace(one, classes_at=differing[0] if differing else None)
    return replace(outputs, modules=modules)


def _outputs(model: nn.Module, inputs: Tensor) -> dict[str, list[Any]]:
    """What each module that is called puts out, call by call, under each of its paths."""
    found: dict[str, list[Any]] = {}
    paths = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
    with Taps(model, paths, lambda path, output: found.setdefault(path, []).append(output)), torch.no_grad():
        model(inputs)
    return found


def _recorded(model: nn.Module, path: str, more: list[Any], fewer: list[Any]) -> ModuleOutput:
    if len(more) != 1:
        return ModuleOutput(len(more), None)
    (output,) = more
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return ModuleOutput(1, None, in_words(output))
    shape = tuple(output.shape)
    if not fewer or shape[:1] != (3,) or tuple(fewer[0].shape) != (2, *shape[1:]):
        return ModuleOutput(1, None, f"{in_words(output)} for 3 samples")
    return ModuleOutput(1, shape[1:], None, _mean_over(model, path, shape[1:]))


def _mean_over(model: nn.Module, path: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return tuple(mean_over(model, path, shape))
    except ValueError:
        return None
