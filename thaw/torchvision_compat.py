"""Lets torchvision be imported beside a CPU build of torch, for which its compiled operators do not load."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

# The import describes these, so they must be declared; models and resizing never call them.
_DESCRIBED = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def import_torchvision() -> ModuleType:
    """The torchvision package, ready for use. Raises ModuleNotFoundError where it is not installed."""
    # A program may have imported it already, and an operator can be declared but once.
    if "torchvision" not in sys.modules and not _operators_load():
        _declared()
    import torchvision  # noqa: PLC0415  # the operators come first

    return torchvision  # type: ignore[no-any-return]  # torchvision ships no types


def _operators_load() -> bool:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed", name="torchvision")
    libraries = sorted(Path(spec.origin).parent.glob("_C*.so"))
    try:
        for library in libraries:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    except OSError:
        return False
    return bool(libraries)


@cache
def _declared() -> torch.library.Library:
    """Cached, because the declarations go when the library is collected."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # the same
    for schema in _DESCRIBED:
        library.define(schema)  # type: ignore[no-untyped-call]  # the same
    return library
