"""Hooks on named modules: what each puts out in a forward, and whether that can be saved at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from shared.domain.activations import ActivationsWanted, ModuleActivations
from shared.domain.near_names import nearest
from worker.training.errors import TrainingFailed
from worker.training.extraction_pooling import described, reduced
from worker.training.preflight import try_forward
from worker.training.snapshot import left_untouched

CODE = "bad_module_output"
DTYPES = {"float32": torch.float32, "float16": torch.float16}

Take = Callable[[str, Any], None]


class Taps:
    """While open, `take` is called with the path and the output of each of the modules, whenever one runs."""

    def __init__(self, model: nn.Module, paths: Sequence[str], take: Take) -> None:
        self._modules = {path: _submodule(model, path) for path in paths}
        self._take = take
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Self:
        for path, module in self._modules.items():
            self._hooks.append(module.register_forward_hook(self._hook(path)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: self._take(path, output)


def inspect(model: nn.Module, inputs: Tensor, wanted: ActivationsWanted) -> dict[str, ModuleActivations]:
    """What will be saved of each module, found by forwards of real samples that leave no trace.

    `model` is in eval mode. Raises TrainingFailed for a module that is not called exactly once, and for an
    output that is no tensor of floating-point numbers with a row for each sample.
    """
    whole = _outputs(model, inputs, wanted.modules)
    # Another number of samples tells a batch from a dimension that happens to be as long.
    fewer = _outputs(model, inputs[:-1], wanted.modules) if len(inputs) > 1 else whole
    found = {}
    for path in wanted.modules:
        shape = _sample_shape(path, whole[path], len(inputs))
        _sample_shape(path, fewer[path], max(1, len(inputs) - 1), shape)
        try:
            found[path] = described(model, path, shape, wanted)
        except ValueError as error:
            raise TrainingFailed(
                f'pool "mean" cannot be applied to the module {path!r}: {error}',
                code=CODE,
                hint='save it with pool "none", or name another module',
            ) from error
    return found


class Collector:
    """Takes what one forward gives, already as it will be saved, on the CPU."""

    def __init__(self, layout: Mapping[str, ModuleActivations]) -> None:
        self._layout = layout
        self._taken: dict[str, Tensor] = {}

    def take(self, path: str, output: Any) -> None:
        """A hook's. The tensor is copied: what comes after the module may write into it."""
        saved = self._layout[path]
        if path in self._taken:
            raise _changed(path, "is called more than once")
        if not isinstance(output, Tensor) or list(output.shape[1:]) != saved.output_shape:
            raise _changed(path, f"puts out {in_words(output)}")
        values = reduced(output.detach(), saved)
        stored = values.to("cpu", DTYPES[saved.dtype], copy=True)
        if saved.dtype == "float16":
            _check_range(path, values, stored)
        self._taken[path] = stored

    def rows(self, n_samples: int) -> dict[str, Tensor]:
        """What this forward of `n_samples` gave, of every module; the next forward begins anew."""
        taken, self._taken = self._taken, {}
        for path in self._layout:
            if path not in taken:
                raise _changed(path, "is not called")
            if len(taken[path]) != n_samples:
                raise _changed(path, f"puts out {len(taken[path])} rows for {n_samples} samples")
        return taken


def _outputs(model: nn.Module, inputs: Tensor, paths: Sequence[str]) -> dict[str, Tensor]:
    """What each module puts out in one forward. Raises TrainingFailed where that is not one tensor."""
    outputs: dict[str, list[Any]] = {path: [] for path in paths}
    every_call: dict[str, None] = {}
    every_path = [path for path, _ in model.named_modules() if path]
    with (
        left_untouched(model, inputs.device),
        torch.no_grad(),
        Taps(model, paths, lambda path, output: outputs[path].append(output)),
        Taps(model, every_path, lambda path, _: every_call.setdefault(path)),
    ):
        try_forward(model, inputs)
    for path, found in outputs.items():
        _check_called_once(path, len(found), list(every_call))
        _check_tensor(path, found[0])
    return {path: found[0] for path, found in outputs.items()}


def _check_called_once(path: str, n_calls: int, called: Sequence[str]) -> None:
    if n_calls == 0:
        raise TrainingFailed(
            f"the module {path!r} is never called in a forward of the model; the nearest that are: "
            f"{', '.join(nearest(path, called))}",
            code="module_not_called",
        )
    if n_calls > 1:
        raise TrainingFailed(
            f"the module {path!r} is called {n_calls} times in one forward, so its output is not one tensor",
            code="module_called_again",
            hint="name the modules around it, or one that is called once",
        )


def _check_tensor(path: str, output: Any) -> None:
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise TrainingFailed(
            f"the module {path!r} puts out {in_words(output)}; "
            "what can be saved is one tensor of floating-point numbers",
            code=CODE,
            hint="name a module inside of it, or around it",
        )


def _sample_shape(path: str, output: Tensor, n_samples: int, expected: list[int] | None = None) -> list[int]:
    """The shape of one sample's output."""
    shape = list(output.shape)
    if not shape or shape[0] != n_samples or (expected is not None and shape[1:] != expected):
        raise TrainingFailed(
            f"the module {path!r} puts out a tensor of shape {shape} for {n_samples} samples; "
            "its first dimension must be the samples, and the others the same for each number of them",
            code=CODE,
            hint="name a module around it",
        )
    return shape[1:]


def _check_range(path: str, values: Tensor, stored: Tensor) -> None:
    if not (stored.isinf() <= values.cpu().isinf()).all():
        raise TrainingFailed(
            f"the module {path!r} puts out values beyond {torch.finfo(torch.float16).max:g}, "
            "which float16 cannot hold",
            code="out_of_range",
            hint='ask for dtype "float32"',
        )


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        near = ", ".join(nearest(path, [name for name, _ in model.named_modules() if name]))
        raise TrainingFailed(
            f"the model has no module {path!r}; the nearest are {near}", code="unknown_module"
        ) from None


def _changed(path: str, what: str) -> TrainingFailed:
    return TrainingFailed(
        f"the module {path!r} {what} in this forward, and did not in the first one",
        code=CODE,
        hint="only what is the same for every batch can be saved",
    )


def in_words(output: Any) -> str:
    """What a module put out, for a person."""
    if isinstance(output, Tensor):
        return f"a tensor of {str(output.dtype).removeprefix('torch.')}, shape {list(output.shape)}"
    return f"a {type(output).__name__}"
