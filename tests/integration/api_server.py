"""`python -m api` as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from waiting import eventually

from shared.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def served(settings: Settings, log: Path) -> Iterator[str]:
    """The address of a real server, once it says that it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "api", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(settings), stdout=output, stderr=output)
    try:
        eventually(lambda: _is_ready(address), within_s=60)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def environment(settings: Settings) -> dict[str, str]:
    """What the process is told."""
    return {
        **os.environ,
        "THAW_DATABASE_URL": settings.database_url.get_secret_value(),
        "THAW_REDIS_URL": settings.redis_url.get_secret_value(),
        "THAW_STORE_URL": settings.store_url,
    }


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False
