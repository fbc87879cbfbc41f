"""Ranks that died of a signal, in words for the person whose job it was."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from shared.domain.events import LOG_FILE, ErrorReport
from shared.domain.run_signs import DEATHS_FILE, STACKS_PREFIX, Death, Deaths
from worker.run_files import NotAPlainFile, end_of, read_plain

PROCESS_KILLED = "process_killed"
HOST_OUT_OF_MEMORY = "host_out_of_memory"
_CRASHED = "process_crashed"
_CRASHES = frozenset({"SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"})
_TRACEBACK_BYTES = 6_000
_STACKS_NAME = re.compile(rf"{STACKS_PREFIX}\d+-\d+\.txt\Z")


def reports_of_deaths(run: Path, batch: str | None) -> list[ErrorReport]:
    """One for each rank that died of a signal. `batch` says in words which batch size was tried."""
    return [_report(run, death, batch) for death in _read(run)]


def for_memory(error: ErrorReport, batch: str | None) -> ErrorReport:
    """The same error, where it is known that the kernel killed for memory meanwhile."""
    if error.code != PROCESS_KILLED:
        return error
    whose = "a process of the run" if error.rank is None else f"rank {error.rank}, or a process of it,"
    message = f"the kernel killed {whose} as no memory was left on the node{_tried(batch)}"
    return error.model_copy(update={"code": HOST_OUT_OF_MEMORY, "message": message, "hint": None})


def _read(run: Path) -> list[Death]:
    try:
        return Deaths.model_validate_json(read_plain(run, DEATHS_FILE)).deaths
    except (FileNotFoundError, NotAPlainFile, ValidationError):
        return []


def _report(run: Path, death: Death, batch: str | None) -> ErrorReport:
    rank, signal = death.rank, death.signal
    if signal in _CRASHES:
        code, message = _CRASHED, f"rank {rank} crashed with {signal}"
    else:
        code, message = PROCESS_KILLED, f"rank {rank} was killed by {signal}, which Thaw did not send"
    if signal == "SIGKILL":
        message += f"; the kernel does so when memory runs out{_tried(batch)}"
    traceback = _stacks_of(run, rank) or end_of(run, LOG_FILE, _TRACEBACK_BYTES)
    return ErrorReport(
        code=code,
        message=message,
        traceback=traceback.decode(errors="replace") or None,
        rank=rank,
        time=death.time,
    )


def _tried(batch: str | None) -> str:
    return f" (it ran with {batch})" if batch else ""


def _stacks_of(run: Path, rank: int) -> bytes:
    """What faulthandler left when the rank crashed; empty where it could not."""
    names = [path.name for path in run.glob(f"{STACKS_PREFIX}{rank}-*") if _STACKS_NAME.match(path.name)]
    return next(filter(None, (end_of(run, name, _TRACEBACK_BYTES) for name in names)), b"")
