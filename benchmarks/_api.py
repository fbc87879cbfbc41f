"""A fresh API process on a real Postgres, for benchmarks over HTTP."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from devstack.folder import DataFolder
from devstack.house import House, environment
from devstack.postgres import Postgres
from devstack.processes import running
from devstack.supervisor import Supervisor

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Bench:
    """A migrated database with an admin's key; each `api` is a process of its own on it."""

    house: House
    key: str

    @contextmanager
    def api(self) -> Iterator[httpx.Client]:
        """A client of a process that has just started and has answered nothing but /readyz."""
        port = _free_port()
        with running(self.house.api(HOST, port)):
            headers = {"Authorization": f"Bearer {self.key}"}
            with httpx.Client(base_url=f"http://{HOST}:{port}", headers=headers, timeout=60) as client:
                yield client


@contextmanager
def bench() -> Iterator[Bench]:
    """The database, the key, and nothing else: no broker, no scheduler, no worker."""
    with tempfile.TemporaryDirectory() as temporary, Supervisor() as supervisor:
        folder = DataFolder.prepare(Path(temporary) / "bench")
        postgres = Postgres.prepare(folder.root / "postgres", durable=True)
        supervisor.start(postgres.part(folder.logs / "postgres.log"))
        postgres.create_database("thaw")
        # No request of these asks the broker.
        house = House(folder, environment(folder, postgres.url("thaw"), "redis://127.0.0.1:1/0"))
        supervisor.run(house.migration())
        supervisor.run(house.bootstrap())
        yield Bench(house, folder.admin_key.read_text().strip())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
