"""Which of its tensors an operation saves for whose gradient: found by trying, on tensors without memory.

A Linear saves what it reads for its weight's gradient, and its weight for that of what it reads; a
convolution saves both for either. autograd decides that by operation, and tells it nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor in a call, by all that the operation's kind of work hangs on; equal for other sizes."""

    n_dimensions: int
    dtype: torch.dtype
    shape: tuple[int, ...] = field(compare=False)
    stride: tuple[int, ...] = field(compare=False)

    def tensor(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype)


@dataclass(frozen=True)
class Call:
    """An operation, the forms of the tensors that it is given, and its other arguments."""

    operation: Any
    leaves: tuple[Any, ...]
    structure: TreeSpec

    @classmethod
    def of(cls, operation: Any, args: Any, kwargs: Any) -> Call:
        leaves, structure = tree_flatten((args, kwargs))
        return cls(operation, tuple(_form(x) if isinstance(x, Tensor) else x for x in leaves), structure)

    @property
    def words(self) -> tuple[str, ...]:
        """The operation and its arguments that are no tensors."""
        return (str(self.operation), *(str(leaf) for leaf in self.leaves if not isinstance(leaf, Form)))

    @property
    def is_random(self) -> bool:
        """Whether it draws random numbers; attention does only with a dropout."""
        if torch.Tag.nondeterministic_seeded not in self.operation.tags:
            return False
        args, kwargs = tree_unflatten(self.leaves, self.structure)
        names = [argument.name for argument in self.operation._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return "dropout_p" not in names or bool(given.get("dropout_p"))

    def tried(self, tensors: list[Tensor]) -> list[Tensor]:
        """What the operation gives back for these tensors."""
        rest = iter(tensors)
        leaves = [next(rest) if isinstance(leaf, Form) else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.structure)
        return [leaf for leaf in tree_leaves(self.operation(*args, **kwargs)) if isinstance(leaf, Tensor)]


@cache
def saved_for(call: Call, wanted: int) -> frozenset[int] | None:
    """The places of the tensors that the gradient of the `wanted`th tensor given saves.

    Places count the tensors given, then those returned. None where the operation cannot be tried.
    """
    kept: list[Tensor] = []
    with FakeTensorMode(), torch.enable_grad(), saved_tensors_hooks(kept.append, lambda _: torch.empty(0)):
        given = [leaf.tensor() for leaf in call.leaves if isinstance(leaf, Form)]
        # Not the leaf itself: operations in place refuse it.
        given[wanted] = given[wanted].requires_grad_().clone()
        try:
            tensors = given + call.tried(given)
        except (RuntimeError, NotImplementedError):
            return None
    memory = {tensor.untyped_storage()._cdata for tensor in kept}
    places = (place for place, one in enumerate(tensors) if one.untyped_storage()._cdata in memory)
    return frozenset(places)


def _form(tensor: Tensor) -> Form:
    return Form(tensor.dim(), tensor.dtype, tuple(tensor.shape), tensor.stride())
