"""Redis as our own child, on a Unix socket alone, with the settings that the queue needs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis

from devstack.binaries import redis_server
from devstack.processes import Part
from devstack.sockets import socket_folder


@dataclass(frozen=True)
class Redis:
    """A Redis that keeps its append-only file in `folder`, which belongs to it alone."""

    folder: Path
    socket: Path

    @classmethod
    def prepare(cls, folder: Path) -> Redis:
        """Make the folder where there is none yet; parents must exist."""
        folder = folder.resolve()
        folder.mkdir(mode=0o700, exist_ok=True)
        return cls(folder, socket_folder(folder / "run") / "redis.sock")

    def part(self, log: Path) -> Part:
        """The server, to be started."""
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return Part(
            name="redis",
            argv=(str(redis_server()), *options),
            env={"PATH": os.environ.get("PATH", os.defpath)},
            log=log,
            folder=self.folder,
            ready=self._answers,
        )

    def url(self, database: int = 0) -> str:
        """The address of a database in the form that Celery and kombu take."""
        return f"redis+socket://{quote(str(self.socket))}?virtual_host={database}"

    def client(self, database: int = 0) -> redis.Redis:
        """A client of a database; the caller closes it."""
        return redis.Redis(unix_socket_path=str(self.socket), db=database, socket_timeout=3)

    def _answers(self) -> bool:
        client = self.client()
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # also while it still reads its file
            return False
        finally:
            client.close()
