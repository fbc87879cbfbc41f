"""What to say where a part of this package needs torch and it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from thaw.errors import UsageError

_OF_THE_EXTRA = frozenset({"torch", "torchvision", "safetensors", "numpy", "PIL"})


@contextmanager
def needs_torch(purpose: str) -> Iterator[None]:
    """Around an import: turns a missing package of the extra `thaw[torch]` into a UsageError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in _OF_THE_EXTRA:
            raise
        raise UsageError(f"{purpose}, {error.name} must be here: pip install 'thaw[torch]'") from error
