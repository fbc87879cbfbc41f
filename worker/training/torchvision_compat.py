"""Makes `import torchvision` work beside a build of torch that cannot load torchvision's compiled operators.

The wheel of torchvision is built for CUDA. With a CPU build of torch its library does not load, and the
import then fails because it describes operators that were never declared. Declaring them is enough for models
and transforms; calling one still raises. Import torchvision only through here.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

MISSING_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def import_torchvision() -> ModuleType:
    """The torchvision package, ready for use in this process."""
    # A program may have imported it already, and an operator can be declared but once.
    if "torchvision" not in sys.modules and not _real_operators_load():
        _declare_operators()
    import torchvision  # noqa: PLC0415  # the operators must be declared first

    return torchvision  # type: ignore[no-any-return]  # torchvision ships no types


def _real_operators_load() -> bool:
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
def _declare_operators() -> torch.library.Library:
    """Declares the schemas. The library is cached because its declarations go when it is collected."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # likewise
    for schema in MISSING_OPERATORS:
        library.define(schema)  # type: ignore[no-untyped-call]  # likewise
    return library
