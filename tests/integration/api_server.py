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
    server = Server(settings, log)
    server.start()
    try:
        server.wait()
        yield server.address
    finally:
        server.stop()


class Server:
    """A server that may be killed, and started again at the same address."""

    def __init__(self, settings: Settings, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = str(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{self._port}"
        self._settings = settings
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "api", "--host", "127.0.0.1", "--port", self._port]
        told = environment(self._settings)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(command, cwd=ROOT, env=told, stdout=output, stderr=output)

    def wait(self) -> None:
        """Until it says that it is ready."""
        eventually(lambda: _is_ready(self.address), within_s=60)

    def stop(self) -> None:
        """As an operator does."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=30)

    def kill(self) -> None:
        """As the kernel does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=30)


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
