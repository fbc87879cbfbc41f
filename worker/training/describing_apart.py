"""Describes registered models each in a child process, which one that ends it or never ends takes along."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from worker.processes import bind_to_parent
from worker.training.process import write_whole_lines

_LAST_WORDS = 2_000
_LOOK_AGAIN_S = 0.02

# Tells parts of a description as it finds them out.
Tell = Callable[[dict[str, Any]], None]


def described_apart(describe: Callable[[Tell], None], limit_s: float) -> dict[str, Any]:
    """All that `describe` told within `limit_s` seconds, in a fork of this process.

    Where the child did not end by itself and well, `unfinished` is true, and how it ended stands as
    `flow_error` behind a tree, else as `error`.
    """
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as words:
        parent, child = os.getpid(), os.fork()
        if child == 0:
            _be_the_child(describe, parent, told, words)
        how = _end_of(child, limit_s)
        told.seek(0)
        description: dict[str, Any] = {}
        for line in told:
            description |= json.loads(line)
        if how is not None:
            words.seek(max(0, words.seek(0, os.SEEK_END) - _LAST_WORDS))
            reason = f"{how}: {words.read().decode(errors='replace').strip()}".removesuffix(": ")
            place = "flow_error" if "tree" in description else "error"
            description |= {place: f"the process that described it {reason}", "unfinished": True}
    return description


def _be_the_child(describe: Callable[[Tell], None], parent: int, told: IO[bytes], words: IO[bytes]) -> None:
    """Describes and ends the process; what the model's own code prints is not ours."""

    def tell(part: dict[str, Any]) -> None:
        os.write(told.fileno(), json.dumps(part).encode() + b"\n")

    status = 1
    try:
        os.setsid()  # whatever the model starts can be ended with it
        bind_to_parent(parent, signal.SIGKILL)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(words.fileno(), stream.fileno())
        write_whole_lines()  # what was printed counts, however the process ends
        describe(tell)
        status = 0
    except BaseException as error:
        os.write(words.fileno(), f"{type(error).__name__}: {error}".encode())
    finally:
        sys.stdout.flush()
        os._exit(status)


def _end_of(child: int, limit_s: float) -> str | None:
    """How the child ended, in words; None if it ended by itself and well."""
    deadline = time.monotonic() + limit_s
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _in_words(os.waitstatus_to_exitcode(status))
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):  # it leads no group yet
                os.killpg(child, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"took longer than {limit_s:g} s"
        time.sleep(_LOOK_AGAIN_S)


def _in_words(code: int) -> str | None:
    if code < 0:
        return f"was killed by signal {-code}"
    return f"ended with exit code {code}" if code else None
