"""From what a rank raised to the report that says so: error-rank<n>.json."""

from __future__ import annotations

import shutil
import time
import traceback
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import torch

from shared.domain.errors import ThawError
from shared.domain.events import ErrorReport
from shared.domain.failures import DISK_FULL, INTERNAL, PEER_LOST, code_of, explained
from worker.disk import full_disk_in_words
from worker.registered import ENTRY_POINTS
from worker.training.errors import TrainingFailed, is_out_of_memory
from worker.training.files import write_json
from worker.training.images import BadSample

TRACEBACK_CHARACTERS = 6_000
# Kept free for the report of a full disk, and for what the launcher writes behind it.
_RESERVED_BYTES = 64 * 1024

_PEER_GONE = (
    "gloo/transport",
    "Connection closed by peer",
    "Connection reset by peer",
    "NCCL error",
    "Broken pipe",
)
_UNUSED_PARAMETERS = "Expected to have finished reduction in the prior iteration"
# Not what a loader raises, which torch passes on as it is, but that the process is gone.
_LOADER_LOST = "DataLoader worker (pid"
_OURS = frozenset({"worker", "shared"})


@dataclass(frozen=True)
class _Why:
    code: str
    message: str
    hint: str | None = None


def reserve_room_for_a_report(rank: int, folder: Path) -> None:
    """Takes the room that a report needs: that the disk is full is one of the things that it may tell."""
    _reserve(rank, folder).write_bytes(bytes(_RESERVED_BYTES))


def report_error(error: BaseException, rank: int, batch: str, folder: Path) -> ErrorReport:
    """Writes error-rank<n>.json for `error`. `batch` says in words which batch size was tried."""
    why = _explain(error, rank, batch, folder)
    own_rank = error.rank if isinstance(error, TrainingFailed) else None
    report = ErrorReport(
        code=why.code,
        message=why.message,
        hint=why.hint,
        traceback="".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:],
        rank=rank if own_rank is None else own_rank,
        time=time.time(),
    )
    if why.code == DISK_FULL:
        _make_room(rank, folder)
    report = explained(report)
    write_json(folder / f"error-rank{rank}.json", report)
    return report


def _explain(error: BaseException, rank: int, batch: str, folder: Path) -> _Why:
    if isinstance(error, TrainingFailed):
        return _Why(error.code, error.message, error.hint)
    if isinstance(error, ThawError):
        return _Why(code_of(error), error.message)
    if isinstance(error, BadSample):
        return _Why(error.code, error.in_words)
    return _of_the_machine(error, rank, batch, folder) or _of_the_code(error)


def _of_the_machine(error: BaseException, rank: int, batch: str, folder: Path) -> _Why | None:
    """Memory, disk, or another process."""
    text = f"{type(error).__name__}: {error}"
    full_disk = full_disk_in_words(error, folder)
    if full_disk is not None:
        return _Why(DISK_FULL, full_disk)
    if is_out_of_memory(error):
        return _Why("out_of_memory", f"no memory left with {batch}: {_first_line(error)}")
    if isinstance(error, RuntimeError) and _LOADER_LOST in text:
        who = f"a process that loads the data for rank {rank} is gone"
        return _Why("process_killed", f"{who}: {_first_line(error)} (it ran with {batch})")
    if _is_lost_peer(error, text):
        return _Why(PEER_LOST, f"another rank of this run is gone: {text}")
    return None


def _of_the_code(error: BaseException) -> _Why:
    """Of the model's code where the error comes from there, else of ours."""
    text = f"{type(error).__name__}: {error}"
    if _UNUSED_PARAMETERS in text:
        return _Why("unused_parameters", text)
    place = _place_in_a_model(error)
    if place is not None:
        return _Why("model_raised", f"the model raised {text} (in {place})")
    return _Why(INTERNAL, text)


def _is_lost_peer(error: BaseException, text: str) -> bool:
    if isinstance(error, torch.distributed.DistError | ConnectionError):
        return True
    return isinstance(error, RuntimeError) and any(sign in text for sign in _PEER_GONE)


def _place_in_a_model(error: BaseException) -> str | None:
    """Where a registered model's own code raised `error`, or called what did; None: it was not in it."""
    packages = {entry.module.partition(".")[0] for entry in entry_points(group=ENTRY_POINTS)}
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in packages:
            return f"{frame.f_code.co_name}, {Path(frame.f_code.co_filename).name}:{line}"
        if package in _OURS:
            return None
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _reserve(rank: int, folder: Path) -> Path:
    return folder / f".reserve-rank{rank}"


def _make_room(rank: int, folder: Path) -> None:
    """Gives up what was reserved, and what was written in part: nobody will read that."""
    _reserve(rank, folder).unlink(missing_ok=True)
    for partial in folder.glob("*/.*.partial"):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
