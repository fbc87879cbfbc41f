"""A network's layers, as the server describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any


@dataclass(frozen=True)
class Tensor:
    """A parameter: its name within its module, and its shape."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Module:
    """A module: its path, exact class name, and the parameters that it holds itself."""

    path: str
    class_name: str
    parameters: tuple[Tensor, ...]


@dataclass(frozen=True)
class Layers:
    """Modules in the network's order, the head's paths, and the blocks in forward order."""

    modules: tuple[Module, ...]
    head: tuple[str, ...]
    blocks: tuple[str, ...]

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Layers:
        return cls(tuple(map(_module, raw["modules"])), tuple(raw["head"]), tuple(raw["blocks"]))

    @property
    def parameter_names(self) -> list[str]:
        """Full names, in the network's order."""
        return [f"{m.path}.{p.name}" if m.path else p.name for m in self.modules for p in m.parameters]

    @property
    def n_parameters(self) -> int:
        """How many numbers all parameters hold."""
        return sum(prod(tensor.shape) for module in self.modules for tensor in module.parameters)


def _module(raw: Mapping[str, Any]) -> Module:
    tensors = tuple(Tensor(tensor["name"], tuple(tensor["shape"])) for tensor in raw.get("parameters") or ())
    return Module(raw["path"], raw["class_name"], tensors)
