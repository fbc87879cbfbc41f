"""Follows one forward of a network, operation by operation: who worked on what, and what autograd kept of it.

Tensors are told apart by the memory they lie in (their storage), so that views and writes in place are no
tensors of their own. A storage's key stays its own while the trace lives, also after its memory is freed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any
from weakref import ref

import torch
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from worker.training.saved_by import Call, saved_for

# What a tensor is kept for: the gradients of earlier steps' results (by index) and of parameters (by name).
Wanted = dict[int | str, None]


@dataclass(frozen=True, slots=True)
class Operation:
    """A call, the tensors given and returned, and what the gradient of each one given is wanted for."""

    call: Call
    tensors: list[int]
    wanted: list[Wanted]
    with_gradients: bool

    def reasons(self) -> Iterator[tuple[int, Wanted]]:
        """Each tensor that it saves, with what it saves it for."""
        for given, wanted in enumerate(self.wanted if self.with_gradients else ()):
            for key in self._saved_for(given) if wanted else ():
                yield key, wanted

    def _saved_for(self, given: int) -> list[int]:
        places = saved_for(self.call, given)
        return self.tensors if places is None else [self.tensors[place] for place in places]


@dataclass
class TracedStep:
    """A `FlowStep` in the making. Tensors are keys of storages; what is read keeps the order of reading."""

    module: str
    first_operation: int
    operations: list[Operation] = field(default_factory=list)
    inputs: dict[int, None] = field(default_factory=dict)
    detached: dict[int, None] = field(default_factory=dict)
    parameters: dict[str, None] = field(default_factory=dict)
    made: dict[int, Wanted] = field(default_factory=dict)
    outputs: dict[int, None] = field(default_factory=dict)
    packed: dict[int, list[ref[_Packed]]] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)

    def everything(self) -> Wanted:
        return dict.fromkeys((*self.inputs, *self.parameters))

    def pass_all_back(self) -> None:
        """What it read without a gradient passes one after all: a custom autograd function did the work."""
        self.inputs |= self.detached
        self.detached.clear()

    def settle(self) -> None:
        """Now that the forward is over: what the graph still keeps."""
        self.kept = [key for key, packed in self.packed.items() if any(one() is not None for one in packed)]

    def kept_for(self) -> dict[int, Wanted]:
        """What each tensor is kept for; where that cannot be found out, all that the step reads."""
        reasons: dict[int, Wanted] = {}
        for operation in self.operations:
            for key, wanted in operation.reasons():
                reasons.setdefault(key, {}).update(wanted)
        return {key: reasons.get(key) or self.everything() for key in self.kept}


class _Packed:
    """In the place of a tensor in autograd's graph: it lives as long as the tensor would be kept."""


@dataclass
class _Storage:
    """A piece of memory: its bytes, the step that wrote to it last, and the operations that use it.

    `born` is the number of the operation that made it, None where it was there before the forward.
    """

    bytes: int
    pinned: StorageWeakRef
    writer: int | None = None
    born: int | None = None
    last_use: int = -1


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The steps of the forward that runs within it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[TracedStep] = []
        self.storages: dict[int, _Storage] = {}
        self._path: list[str] = [""]
        self._open: TracedStep | None = None
        self._n_operations = 0
        self._parameters = _names_by_storage(self, model)
        self._buffers = {self._key(buffer) for buffer in model.buffers()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        given = {self._key(tensor) for tensor in inputs}
        new = [tensor for tensor in outputs if self._key(tensor) not in given]
        for tensor in new:
            self.storages[self._key(tensor)].born = self._n_operations
        if written := new + _written(func, args, kwargs):  # else it is a view, and no work
            self._note(Call.of(func, args, kwargs), inputs, outputs, written)
        return result

    def enter(self, path: str) -> None:
        """The forward of the module at `path` begins."""
        self._path.append(path)
        self._open = None

    def leave(self) -> None:
        self._path.pop()
        self._open = None

    def pack(self, tensor: Tensor) -> _Packed:
        """autograd keeps `tensor`."""
        step = self._step()
        packed = _Packed()
        step.packed.setdefault(self._key(tensor), []).append(ref(packed))
        return packed

    def returned(self, output: Any) -> None:
        """What the network gives back is read by whoever called it."""
        for tensor in _tensors(output):
            storage = self.storages[self._key(tensor)]
            storage.last_use = self._n_operations
            if storage.writer is not None:
                self.steps[storage.writer].outputs[self._key(tensor)] = None

    def kept_places(self) -> dict[int, int]:
        """The place of each tensor that some step keeps, in the order of keeping."""
        keys = dict.fromkeys(key for step in self.steps for key in step.kept)
        return {key: place for place, key in enumerate(keys)}

    def most_at_once(self, step: TracedStep) -> int:
        """The most bytes that what the step makes takes at once, each from its making to its last use."""
        change = [0] * (len(step.operations) + 1)
        first = step.first_operation
        for storage in map(self.storages.__getitem__, step.made):
            if storage.born is not None and storage.born >= first:
                change[storage.born - first] += storage.bytes
                change[min(storage.last_use + 1 - first, len(step.operations))] -= storage.bytes
        return max(accumulate(change))

    def _note(
        self, call: Call, inputs: Sequence[Tensor], outputs: Sequence[Tensor], written: Sequence[Tensor]
    ) -> None:
        step = self._step()
        wanted = [self._read(step, tensor) for tensor in inputs]
        keys = [self._key(tensor) for tensor in (*inputs, *outputs)]
        step.operations.append(Operation(call, keys, wanted, torch.is_grad_enabled()))
        for tensor in written:
            self._write(step, tensor, wanted)
        self._n_operations += 1

    def _read(self, step: TracedStep, tensor: Tensor) -> Wanted:
        """Notes what the step reads, and returns whose gradients a gradient of `tensor` leads to."""
        key = self._key(tensor)
        storage = self.storages[key]
        storage.last_use = self._n_operations
        if key in self._parameters:
            step.parameters |= dict.fromkeys(self._parameters[key])
            return dict.fromkeys(self._parameters[key])
        if storage.writer is None or key in self._buffers:
            return {}
        writer = self.steps[storage.writer]
        passes = tensor.requires_grad and torch.is_grad_enabled()
        if passes and not writer.made[key]:
            writer.pass_all_back()
            writer.made[key] = writer.everything()
        if writer is step:
            return writer.made[key] if passes else {}
        writer.outputs[key] = None
        if passes:
            step.inputs[storage.writer] = None
        elif storage.writer not in step.inputs:
            step.detached[storage.writer] = None
        return {storage.writer: None} if passes else {}

    def _write(self, step: TracedStep, tensor: Tensor, wanted: Sequence[Wanted]) -> None:
        key = self._key(tensor)
        storage = self.storages[key]
        storage.last_use = self._n_operations
        storage.writer = len(self.steps) - 1
        made = step.made.setdefault(key, {})
        for reasons in wanted:
            made |= reasons

    def _step(self) -> TracedStep:
        if self._open is None:
            self._open = TracedStep(self._path[-1], self._n_operations)
            self.steps.append(self._open)
        return self._open

    def _key(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        key: int = storage._cdata
        if key not in self.storages:
            self.storages[key] = _Storage(storage.nbytes(), _pinned(storage))
        return key


@contextmanager
def _paths_told(trace: Trace, model: nn.Module) -> Iterator[None]:
    """Each module's forward says when it begins and ends."""

    def entering(path: str) -> Callable[..., None]:
        return lambda *_: trace.enter(path)

    hooks = [module.register_forward_pre_hook(entering(path)) for path, module in model.named_modules()]
    hooks += [
        module.register_forward_hook(lambda *_: trace.leave(), always_call=True) for module in model.modules()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def trace(model: nn.Module, example: Tensor) -> Trace:
    """The trace of one forward on `example`, as the model's modes and `requires_grad` stand."""
    found = Trace(model)
    with found, _paths_told(found, model), saved_tensors_hooks(found.pack, _unpack):
        output = model(example)
    found.returned(output)
    for step in found.steps:
        step.settle()
    return found


def _pinned(storage: UntypedStorage) -> StorageWeakRef:
    """Keeps the storage's address from another's use; its memory is freed when the network lets it go."""
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def _unpack(_packed: _Packed) -> Tensor:
    raise RuntimeError("its own forward runs a backward, which cannot be traced")


def _names_by_storage(trace: Trace, model: nn.Module) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters():
        names.setdefault(trace._key(parameter), []).append(name)
    return names


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that the operation writes to."""
    found: list[Tensor] = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            found += _tensors(given)
    return found
