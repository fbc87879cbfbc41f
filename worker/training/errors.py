"""Why a run gives up, in words for the person who asked for it."""

from __future__ import annotations

import torch

from shared.domain.errors import ThawError

_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "not enough memory",
    "out of memory",
    "Cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class TrainingFailed(ThawError):
    """The run cannot go on. `code` is a stable word, `hint` says what would help.

    `rank` is the one that it came from, where all ranks raise it together.
    """

    default_code = "internal"

    def __init__(self, message: str, *, code: str, hint: str | None = None, rank: int | None = None) -> None:
        super().__init__(message, code=code)
        self.hint = hint
        self.rank = rank


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that the device or the host had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
