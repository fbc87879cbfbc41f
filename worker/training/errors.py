"""Why a run gives up, in words for the person who asked for it, and the report that says so."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

import torch

from shared.domain.errors import ThawError
from shared.domain.events import ErrorReport
from worker.training.files import write_json

TRACEBACK_CHARACTERS = 6_000

_PEER_LOST = (
    "gloo/transport",
    "Connection closed by peer",
    "Connection reset by peer",
    "NCCL error",
    "Broken pipe",
)
# Not what a loader raises, which torch passes on as it is, but that the process is gone.
_LOADER_LOST = "DataLoader worker (pid"
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "CUDA out of memory")
_UNUSED_PARAMETERS = "Expected to have finished reduction in the prior iteration"


class TrainingFailed(ThawError):
    """The run cannot go on. `code` is a stable word, `hint` says what would help."""

    default_code = "internal"

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message, code=code)
        self.hint = hint


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that the device or the host had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


def report_error(error: BaseException, rank: int, batch: str, folder: Path) -> ErrorReport:
    """Writes error-rank<n>.json for `error`. `batch` says in words which batch size was tried."""
    code, message, hint = _explain(error, batch)
    report = ErrorReport(
        code=code,
        message=message,
        hint=hint,
        traceback="".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:],
        rank=rank,
        time=time.time(),
    )
    write_json(folder / f"error-rank{rank}.json", report)
    return report


def _explain(error: BaseException, batch: str) -> tuple[str, str, str | None]:
    if isinstance(error, TrainingFailed):
        return error.code, error.message, error.hint
    if isinstance(error, ThawError):
        return error.code, error.message, None
    text = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        return "out_of_memory", f"no memory left with {batch}", "try half the batch_size, or smaller pictures"
    if _is_lost_peer(error, text):
        return "peer_lost", f"another rank of this run is gone: {text}", None
    if isinstance(error, RuntimeError) and _LOADER_LOST in text:
        return "peer_lost", f"a process that loads the data for this run is gone: {text}", None
    if _UNUSED_PARAMETERS in text:
        return (
            "unused_parameters",
            text,
            "set freeze.find_unused_parameters to true: the graph changes between steps",
        )
    return "internal", text, None


def _is_lost_peer(error: BaseException, text: str) -> bool:
    if isinstance(error, torch.distributed.DistError | ConnectionError):
        return True
    return isinstance(error, RuntimeError) and any(sign in text for sign in _PEER_LOST)
