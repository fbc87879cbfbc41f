"""What each module of a network puts out in one forward, as data: recorded once, from the real network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from shared.domain.activations import ActivationsWanted, Pool
from shared.domain.errors import Invalid

_BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True, slots=True)
class ModuleOutput:
    """A module that is called `n_calls` times in a forward.

    `shape` is one sample's, for pictures of the size that it was recorded with; None where the output is not
    one tensor with a row for each sample: `kind` says in words what it is. `mean_over` are the dimensions of
    `shape`, counted from 0, that pool "mean" averages; None where it cannot. `classes_at` is the dimension
    that is as long as the network has classes, if one is.
    """

    n_calls: int
    shape: tuple[int, ...] | None
    kind: str | None = None
    mean_over: tuple[int, ...] | None = None
    classes_at: int | None = None

    def with_num_classes(self, num_classes: int) -> ModuleOutput:
        """The same in a network with another head."""
        if self.shape is None or self.classes_at is None:
            return self
        before, after = self.shape[: self.classes_at], self.shape[self.classes_at + 1 :]
        return replace(self, shape=(*before, num_classes, *after))


@dataclass(frozen=True)
class Outputs:
    """Of every module that is called, by its path; `image_size` (height, width) is that of the pictures."""

    image_size: tuple[int, int]
    modules: Mapping[str, ModuleOutput]

    def with_num_classes(self, num_classes: int) -> Outputs:
        """The same network with another number of classes."""
        modules = {path: one.with_num_classes(num_classes) for path, one in self.modules.items()}
        return replace(self, modules=modules)

    def check(self, paths: Sequence[str], pool: Pool, param: str) -> None:
        """Raises Invalid for the first of `paths` whose output cannot be saved, or not so pooled."""
        for path in paths:
            problem = self._problem(path, pool)
            if problem:
                raise Invalid(f"the module {path!r} {problem}", param=param, code="cannot_be_saved")

    def saved_shape(
        self, path: str, wanted: ActivationsWanted, image_size: tuple[int, int]
    ) -> list[int] | None:
        """What is saved of a sample, for pictures of `image_size`; None where only a forward can tell.

        Another size of picture changes places, not features: a mean over places has the same shape.
        """
        output = self.modules[path]
        means = output.mean_over if wanted.pool == "mean" else ()
        assert output.shape is not None
        assert means is not None
        is_told = image_size == self.image_size or len(output.shape) - len(means) <= 1
        if not is_told:
            return None
        shape = [side for place, side in enumerate(output.shape) if place not in means]
        return [prod(shape)] if wanted.output == "parquet" else shape

    def to_data(self) -> dict[str, Any]:
        """Plain JSON values: each module is a list of its fields."""
        fields = {
            path: [one.n_calls, one.shape, one.kind, one.mean_over, one.classes_at]
            for path, one in self.modules.items()
        }
        return {"image_size": list(self.image_size), "modules": fields}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Outputs:
        height, width = data["image_size"]
        return cls((height, width), {path: _output(*fields) for path, fields in data["modules"].items()})

    def _problem(self, path: str, pool: Pool) -> str | None:
        output = self.modules.get(path)
        if output is None:
            return "is never called in a forward of this network"
        if output.n_calls > 1:
            return (
                f"is called {output.n_calls} times in one forward, so its output is not one tensor; "
                "name the modules around it"
            )
        if output.shape is None:
            return f"puts out {output.kind}; what can be saved is one tensor with a row for each sample"
        if pool == "mean" and output.mean_over is None:
            return f'puts out {list(output.shape)} for a sample, to which pool "mean" cannot be applied'
        return None


def estimated_bytes(
    shapes: Sequence[Sequence[int] | None], wanted: ActivationsWanted, n_samples: int
) -> int | None:
    """What all samples take; None where some shape is not known."""
    if any(shape is None for shape in shapes):
        return None
    of_sample = sum(prod(shape) for shape in shapes if shape is not None) * _BYTES[wanted.dtype]
    return n_samples * (of_sample + 8)


def _output(
    n_calls: int, shape: Any, kind: str | None, mean_over: Any, classes_at: int | None
) -> ModuleOutput:
    return ModuleOutput(
        n_calls,
        None if shape is None else tuple(shape),
        kind,
        None if mean_over is None else tuple(mean_over),
        classes_at,
    )
