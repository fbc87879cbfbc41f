"""What the tensors of a network weigh, from its tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from shared.domain.module_tree import ModuleTree, TensorInfo, join

_ELEMENT_BYTES = {
    "complex128": 16,
    "complex64": 8,
    "float64": 8,
    "int64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True)
class TensorBytes:
    """Bytes of each parameter by its canonical name, and of each buffer by its full name."""

    parameters: Mapping[str, int]
    buffers: Mapping[str, int]

    @classmethod
    def of(cls, tree: ModuleTree) -> TensorBytes:
        named = ((join(m.path, p.name), p) for m in tree.modules for p in m.parameters)
        return cls(
            parameters={name: tensor_bytes(p) for name, p in named if name not in tree.aliases},
            buffers={join(m.path, b.name): tensor_bytes(b) for m in tree.modules for b in m.buffers},
        )

    @property
    def total(self) -> int:
        return sum(self.parameters.values()) + sum(self.buffers.values())


def tensor_bytes(tensor: TensorInfo) -> int:
    """Types that are not in the table are rare kinds of a byte each, such as float8_e4m3fn."""
    return prod(tensor.shape) * _ELEMENT_BYTES.get(tensor.dtype, 1)
