"""Reads a live network into a `ModuleTree`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from shared.domain.errors import Invalid
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo, is_below, join
from worker.training.eval_mode import in_eval_mode

CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict"})


def describe_module(
    model: nn.Module,
    head: str | Sequence[str] | None = None,
    example: Tensor | None = None,
    opened: Iterable[str] = (),
) -> ModuleTree:
    """What `model` consists of. The model is left as it was.

    `head` names the classifying module, or several, the main one first; left out, it is the last Linear in
    registration order. `example` is a batch of inputs for one forward, which gives the order of the blocks;
    without one they stand in registration order. `opened` are further class names whose children, not they
    themselves, are blocks.
    """
    paths = _head_paths(model, head)
    order = _first_calls(model, example) if example is not None else None
    tree = ModuleTree(
        modules=tuple(_module_info(path, module) for path, module in model.named_modules()),
        aliases=_aliases(model),
        head=paths,
        blocks=_blocks(model, paths, order, CONTAINERS.union(opened)),
        num_classes=None,
    )
    return tree.with_head(paths) if paths else tree


def _head_paths(model: nn.Module, head: str | Sequence[str] | None) -> tuple[str, ...]:
    if head is not None:
        return (head,) if isinstance(head, str) else tuple(head)
    linears = [path for path, module in model.named_modules() if type(module).__name__ == "Linear"]
    return tuple(linears[-1:])


def _module_info(path: str, module: nn.Module) -> ModuleInfo:
    parameters = [(name, p) for name, p in module._parameters.items() if p is not None]
    buffers = [(name, b) for name, b in module._buffers.items() if b is not None]
    for name, parameter in parameters:
        if isinstance(parameter, UninitializedParameter):
            raise Invalid(
                f"{join(path, name)!r} has no shape yet: lazy modules cannot be described, give sizes"
            )
    return ModuleInfo(
        path=path,
        class_name=type(module).__name__,
        parameters=tuple(_tensor_info(name, p) for name, p in parameters),
        buffers=tuple(_tensor_info(name, b) for name, b in buffers),
    )


def _tensor_info(name: str, tensor: Tensor) -> TensorInfo:
    return TensorInfo(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _aliases(model: nn.Module) -> dict[str, str]:
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: canonical[id(p)] for name, p in every if canonical[id(p)] != name}


def _blocks(
    model: nn.Module, head: Sequence[str], order: dict[str, int] | None, containers: frozenset[str]
) -> tuple[str, ...]:
    """The opened children that have parameters, in the order of their first call where that is known."""
    found = [
        path
        for path, module in _opened_children(model, "", containers)
        if any(True for _ in module.parameters()) and not any(is_below(path, h) for h in head)
    ]
    if order is None:
        return tuple(found)
    return tuple(sorted((path for path in found if path in order), key=order.__getitem__))


def _opened_children(
    module: nn.Module, path: str, containers: frozenset[str]
) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        child_path = join(path, name)
        if type(child).__name__ in containers:
            yield from _opened_children(child, child_path, containers)
        else:
            yield child_path, child


def _first_calls(model: nn.Module, example: Tensor) -> dict[str, int]:
    """For each module that an eval-mode forward calls: its place in the order of first calls."""
    calls: dict[str, int] = {}

    def noting(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _module, _inputs: calls.update({path: calls.get(path, len(calls))})

    hooks = [module.register_forward_pre_hook(noting(path)) for path, module in model.named_modules()]
    try:
        with torch.no_grad(), in_eval_mode(model):
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return calls
