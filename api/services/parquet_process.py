"""Reads a Parquet file in a process of its own, with bounded memory and time.

    python -m api.services.parquet_process '{"files": ..., "unpacked_bytes": ..., "ratio": ...}' \
        MEMORY_BYTES CPU_SECONDS < FILE

A small file may unpack to gigabytes, whatever it says of itself: here that is the end of its own upload and
of nothing else. The answer is one JSON object on standard output.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

from shared.domain.archive import Caps
from shared.domain.errors import Invalid, TooLarge


def main(caps: str, memory_bytes: str, cpu_seconds: str) -> None:
    """Answer with what was found, or with why the file is refused."""
    _limit(resource.RLIMIT_AS, int(memory_bytes))
    _limit(resource.RLIMIT_CPU, int(cpu_seconds))
    _limit(resource.RLIMIT_CORE, 0)
    answer: dict[str, Any]
    try:
        answer = {"found": _read(Caps(**json.loads(caps)))}
    except (Invalid, TooLarge) as error:
        answer = {"refused": [type(error).__name__, error.message, error.param, error.code]}
    except MemoryError:
        answer = {"out_of_memory": True}
    json.dump(answer, sys.stdout)


def _limit(kind: int, most: int) -> None:
    resource.setrlimit(kind, (most, most))


def _read(caps: Caps) -> dict[str, Any]:
    import pyarrow as pa  # noqa: PLC0415  # within the limits

    from api.services.parquet_file import read_labelled_table  # noqa: PLC0415  # likewise

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with open(0, "rb", closefd=False) as file:
        return read_labelled_table(file, caps)


if __name__ == "__main__":
    main(*sys.argv[1:])
