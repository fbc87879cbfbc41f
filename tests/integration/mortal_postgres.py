"""A Postgres of a test's own that may be killed, and loses nothing by it; with a migrated database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api_server import ROOT

from devstack.postgres import Postgres
from devstack.processes import Child

_MIGRATE = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head"]


class MortalPostgres:
    """It answers at `url` while it lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        server = Postgres.prepare(folder / "server", durable=True)
        self.url = server.url("thaw")
        self._part = server.part(folder / "log")
        self._child = Child(self._part)
        self._child.wait_ready()
        server.create_database("thaw")

    def migrate(self) -> None:
        subprocess.run(_MIGRATE, cwd=ROOT, env={**os.environ, "THAW_DATABASE_URL": self.url}, check=True)

    def die_and_come_back(self) -> None:
        self._child.kill()
        self._child = Child(self._part)
        self._child.wait_ready()

    def end(self) -> None:
        self._child.stop()


@contextmanager
def mortal_postgres(folder: Path) -> Iterator[MortalPostgres]:
    """Below a folder that is made for it. For the main thread: the server is bound to its life."""
    server = MortalPostgres(folder)
    try:
        server.migrate()
        yield server
    finally:
        server.end()
