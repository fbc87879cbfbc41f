"""What is known of a network without building it: modules, parameters, buffers, head, blocks, as data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

from shared.domain.errors import Invalid

REPLACEABLE_HEADS = frozenset({"Linear", "Conv2d"})

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A parameter or buffer: its name within its module, its shape and its type (`float32`)."""

    name: str
    shape: Shape
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """One module: its path (`""` is the root), exact class name, and the tensors it holds itself."""

    path: str
    class_name: str
    parameters: tuple[TensorInfo, ...] = ()
    buffers: tuple[TensorInfo, ...] = ()


@dataclass(frozen=True)
class ModuleTree:
    """A network as data.

    `modules` stand in the order of `named_modules()`. `aliases` maps each further name of a shared parameter
    to the name that `named_parameters()` gives it. `head` holds the module paths that a change of classes
    replaces, the main one first, auxiliary classifiers behind it. `blocks` are module paths in forward order,
    head excluded.
    """

    modules: tuple[ModuleInfo, ...]
    aliases: Mapping[str, str]
    head: tuple[str, ...]
    blocks: tuple[str, ...]
    num_classes: int | None

    @cached_property
    def by_path(self) -> Mapping[str, ModuleInfo]:
        return {module.path: module for module in self.modules}

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Each parameter's shape by its canonical name, in the order of `named_parameters()`."""
        named = ((join(m.path, p.name), p.shape) for m in self.modules for p in m.parameters)
        return {name: shape for name, shape in named if name not in self.aliases}

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Every full name of a parameter, aliases included, with its canonical name."""
        return {name: name for name in self.shapes} | dict(self.aliases)

    @cached_property
    def n_elements(self) -> Mapping[str, int]:
        """How many numbers each parameter holds, by its canonical name."""
        return {name: prod(shape) for name, shape in self.shapes.items()}

    @cached_property
    def paths_and_names(self) -> Sequence[str]:
        """What a path pattern may name: each module with parameters below it, and each parameter."""
        paths = {prefix: None for name in self.names for prefix in _prefixes(name)}
        return [*paths, *self.names]

    @cached_property
    def holders(self) -> frozenset[str]:
        """The modules with parameters below them, the root among them."""
        return frozenset(prefix for name in self.names for prefix in ("", *_prefixes(name)))

    def with_num_classes(self, num_classes: int) -> ModuleTree:
        """The tree after each head module was made anew with `num_classes` outputs."""
        if not self.head:
            raise Invalid("this model has no head that could be replaced: name one", param="head.module")
        for path in self.head:
            self._check_replaceable(path)
        modules = tuple(_with_outputs(m, num_classes) if m.path in self.head else m for m in self.modules)
        return replace(self, modules=modules, num_classes=num_classes)

    def with_head(self, paths: Iterable[str]) -> ModuleTree:
        """The tree with another main head. Auxiliary classifiers stay heads: they put out classes too."""
        main = tuple(paths)
        for path in main:
            self._check_replaceable(path)
        head = main + tuple(path for path in self.head[1:] if path not in main)
        blocks = tuple(block for block in self.blocks if not any(is_below(block, path) for path in head))
        return replace(
            self, head=head, blocks=blocks, num_classes=self.by_path[main[0]].parameters[0].shape[0]
        )

    def with_shape(self, name: str, shape: Shape) -> ModuleTree:
        """The tree with another shape for the parameter `name`."""
        owner, _, own_name = name.rpartition(".")
        modules = tuple(_with_shape(m, own_name, shape) if m.path == owner else m for m in self.modules)
        return replace(self, modules=modules)

    def to_data(self) -> dict[str, Any]:
        """Plain JSON values, compact: modules and tensors are lists, float32 is left out."""
        return {
            "modules": [_module_to_data(module) for module in self.modules],
            "aliases": dict(self.aliases),
            "head": list(self.head),
            "blocks": list(self.blocks),
            "num_classes": self.num_classes,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ModuleTree:
        return cls(
            modules=tuple(_module_from_data(*module) for module in data["modules"]),
            aliases=dict(data["aliases"]),
            head=tuple(data["head"]),
            blocks=tuple(data["blocks"]),
            num_classes=data["num_classes"],
        )

    def _check_replaceable(self, path: str) -> None:
        module = self.by_path.get(path)
        if module is None:
            raise Invalid(f"{path!r} is no module of this model", param="head.module", code="unknown_module")
        if module.class_name not in REPLACEABLE_HEADS:
            fitting = [
                m.path for m in self.modules if m.class_name in REPLACEABLE_HEADS and is_below(m.path, path)
            ]
            hint = f"; {fitting[-1]!r} below it is one" if fitting else ""
            raise Invalid(
                f"the head must be a Linear or a Conv2d, and {path!r} is a {module.class_name}{hint}",
                param="head.module",
                code="head_not_replaceable",
            )
        shared = [name for pair in self.aliases.items() for name in pair if is_below(name, path)]
        if shared:
            raise Invalid(
                f"the head {path!r} shares {shared[0]!r} with another part and cannot be replaced",
                param="head.module",
                code="head_not_replaceable",
            )


def join(path: str, name: str) -> str:
    """The full name of `name` inside the module at `path`."""
    return f"{path}.{name}" if path else name


def is_below(name: str, path: str) -> bool:
    """Whether `name` is the module path itself or something inside that module."""
    return not path or name == path or name.startswith(path + ".")


def enclosing(name: str, paths: Collection[str]) -> str | None:
    """The innermost of the module `paths` that `name` is below, `name` itself included."""
    while name not in paths:
        if not name:
            return None
        name = name.rpartition(".")[0]
    return name


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _with_outputs(module: ModuleInfo, outputs: int) -> ModuleInfo:
    parameters = tuple(replace(p, shape=(outputs, *p.shape[1:])) for p in module.parameters)
    return replace(module, parameters=parameters)


def _with_shape(module: ModuleInfo, name: str, shape: Shape) -> ModuleInfo:
    parameters = tuple(replace(p, shape=shape) if p.name == name else p for p in module.parameters)
    return replace(module, parameters=parameters)


def _module_to_data(module: ModuleInfo) -> list[Any]:
    fields: list[Any] = [module.path, module.class_name]
    if module.parameters or module.buffers:
        fields.append([_tensor_to_data(p) for p in module.parameters])
    if module.buffers:
        fields.append([_tensor_to_data(b) for b in module.buffers])
    return fields


def _module_from_data(path: str, class_name: str, parameters: Any = (), buffers: Any = ()) -> ModuleInfo:
    return ModuleInfo(
        path, class_name, tuple(map(_tensor_from_data, parameters)), tuple(map(_tensor_from_data, buffers))
    )


def _tensor_to_data(tensor: TensorInfo) -> list[Any]:
    fields: list[Any] = [tensor.name, list(tensor.shape)]
    return fields if tensor.dtype == "float32" else [*fields, tensor.dtype]


def _tensor_from_data(fields: list[Any]) -> TensorInfo:
    name, shape, *dtype = fields
    return TensorInfo(name, tuple(shape), *dtype)
