"""Has a Parquet file read by a process of its own: see parquet_process.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import Any, BinaryIO

from shared.domain.archive import Caps
from shared.domain.errors import Invalid, TooLarge

MEMORY_BYTES = 1024**3
CPU_SECONDS = 120
SECONDS = 300
_REFUSALS = {error.__name__: error for error in (Invalid, TooLarge)}
_COMMAND = (sys.executable, "-m", "api.services.parquet_process")
# Arrow would take address space for each core. The passwords in this process's environment stay here.
_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
}


def looks_like_parquet(file: BinaryIO) -> bool:
    """Whether the file starts as a Parquet file does."""
    file.seek(0)
    return file.read(4) == b"PAR1"


def read_labelled_table_apart(file: BinaryIO, caps: Caps) -> dict[str, Any]:
    """What read_labelled_table finds in a file on disk. Raises Invalid and TooLarge, as it does.

    TooLarge also where it takes more memory or time than an upload may cost.
    """
    descriptor = file.fileno()  # brings a small upload, held in memory until now, to the disk
    file.flush()
    try:
        done = subprocess.run(  # noqa: S603 - our own program; the file is its input alone
            [*_COMMAND, json.dumps(asdict(caps)), str(MEMORY_BYTES), str(CPU_SECONDS)],
            stdin=descriptor,
            capture_output=True,
            env={**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _costs_too_much() from error
    if done.returncode < 0:
        raise _costs_too_much()
    if done.returncode:
        raise RuntimeError(f"the Parquet reader failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return _found(json.loads(done.stdout))


def _found(answer: dict[str, Any]) -> dict[str, Any]:
    match answer:
        case {"found": dict(found)}:
            return found
        case {"refused": [str(kind), str(message), param, code]}:
            raise _REFUSALS[kind](message, param=param, code=code)
    raise _costs_too_much()


def _costs_too_much() -> TooLarge:
    return TooLarge(
        f"the Parquet file cannot be read within {MEMORY_BYTES // 1024**2:,} MiB and {CPU_SECONDS} s; "
        "write it with smaller row groups and data pages",
        param="file",
        code="archive_too_large",
    )
