"""Real services as processes of a test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shared.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def processes(
    *commands: list[str],
    settings: Settings,
    environments: list[dict[str, str]],
    logs: Sequence[Path] | None = None,
) -> Iterator[None]:
    """Each with its environment beside the common one, and its log where one is named; killed at the end."""
    common = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "THAW_DATABASE_URL": settings.database_url.get_secret_value(),
        "THAW_REDIS_URL": settings.redis_url.get_secret_value(),
        "THAW_STORE_URL": settings.store_url,
    }
    with ExitStack() as files:
        outputs = [files.enter_context(path.open("wb")) for path in logs] if logs else [None] * len(commands)
        running = [
            subprocess.Popen([sys.executable, *command], env=common | own, cwd=ROOT, stderr=output)
            for command, own, output in zip(commands, environments, outputs, strict=True)
        ]
        try:
            yield
        finally:
            for process in running:
                process.send_signal(signal.SIGKILL)
                process.wait()
