"""Postgres as our own child, on a Unix socket alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from devstack.binaries import postgres_folder
from devstack.identity import Identity, unprivileged
from devstack.leftovers import clear_the_way
from devstack.processes import Part
from devstack.sockets import socket_folder

USER = "thaw"
_MAINTENANCE = "postgres"
_INITDB_LIMIT_S = 120
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] %q%a ",
    "jit": "off",
}
# What a crash of the machine would lose, and a crash of a process would not.
_FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Postgres:
    """A Postgres cluster below `folder`, which belongs to it alone; made by `prepare`."""

    folder: Path
    sockets: Path
    identity: Identity
    durable: bool

    @classmethod
    def prepare(cls, folder: Path, *, durable: bool) -> Postgres:
        """Make the cluster below `folder` where there is none yet; parents must exist.

        `durable` says whether it must survive a crash of the machine; False is for tests.
        """
        folder = folder.resolve()
        folder.mkdir(mode=0o700, exist_ok=True)
        identity = unprivileged(folder, postgres_folder() / "postgres")
        server = cls(folder, socket_folder(folder / "run", identity.uid), identity, durable)
        if not server.data.exists():
            server._make_cluster()
        return server

    @property
    def data(self) -> Path:
        """The cluster's own folder."""
        return self.folder / "data"

    def part(self, log: Path) -> Part:
        """The server, to be started; it is stopped by a fast shutdown, and at once when we are killed."""
        settings = {"unix_socket_directories": str(self.sockets), **_SETTINGS}
        if not self.durable:
            settings |= _FAST_SETTINGS
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Part(
            name="postgres",
            argv=(str(postgres_folder() / "postgres"), "-D", str(self.data), *options),
            env=_environment(),
            log=log,
            folder=self.folder,
            ready=self._answers,
            before_start=lambda: clear_the_way(self.data),
            stop_signal=signal.SIGINT,
            stop_within_s=30.0,
            death_signal=signal.SIGQUIT,
            identity=self.identity,
        )

    def url(self, database: str) -> str:
        """The address of a database for SQLAlchemy."""
        return f"postgresql+psycopg://{USER}@/{quote(database)}?host={quote(str(self.sockets))}&port=5432"

    def has_database(self, name: str) -> bool:
        """Whether there is a database of that name."""
        with self._connect() as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            return found.fetchone() is not None

    def create_database(self, name: str, template: str = "template1") -> None:
        """Make a database as a copy of `template`, to which nobody may be connected."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._execute(statement.format(sql.Identifier(name), sql.Identifier(template)))

    def drop_database(self, name: str) -> None:
        """Drop a database, cutting off whoever is still connected."""
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with self._connect() as connection:
            connection.execute(statement)

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.sockets),
            port=5432,
            user=USER,
            dbname=_MAINTENANCE,
            connect_timeout=3,
            autocommit=True,
        )

    def _answers(self) -> bool:
        try:
            with self._connect() as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _make_cluster(self) -> None:
        """Made aside and renamed, so that an interrupted attempt is not taken for a cluster."""
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [str(postgres_folder() / "initdb"), "--pgdata", str(unfinished), "--username", USER]
        command += ["--auth=trust", "--encoding=UTF8"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self.durable:
            command.append("--no-sync")
        done = subprocess.run(  # noqa: S603 - our own words and paths
            self.identity.command(command),
            env=_environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_INITDB_LIMIT_S,
            check=False,
            start_new_session=True,  # a Ctrl-C is ours to handle
        )
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed in {unfinished}:\n{done.stdout}{done.stderr}")
        unfinished.rename(self.data)


def _environment() -> dict[str, str]:
    """Nothing of ours but the search path: PG variables of a person's shell would change the server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC", "LC_ALL": "C"}
