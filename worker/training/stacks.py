"""Where this rank stands, left in a file on SIGUSR1 and in a crash. Works while Python itself is stuck.

It is set up before torch is imported, so that a start that hangs can be asked as well.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from contextlib import suppress
from pathlib import Path

from shared.domain.run_signs import stacks_file


def leave_stacks_on_request(rank: int, folder: Path) -> None:
    """The file stands there as soon as the signal may be sent; before that it would end the process."""
    with suppress(OSError):  # on a full disk nobody can be answered
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / stacks_file(rank, os.getpid())
        aside = target.with_name(f".{target.name}.partial")
        file = aside.open("w")
        faulthandler.enable(file)
        faulthandler.register(signal.SIGUSR1, file)
        aside.replace(target)
