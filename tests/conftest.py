"""The real servers, started once a session; a fresh database and an empty queue for each test that asks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devstack.postgres import Postgres
from devstack.processes import running
from devstack.redis import Redis

if TYPE_CHECKING:
    from shared.settings import Settings

# Before torch is loaded. On networks as small as the tests' a second thread costs twice the processor time,
# and threads that spin while they wait for one another cost more still once another process wants the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "migrated"
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A running Postgres without durability."""
    folder = tmp_path_factory.mktemp("postgres")
    server = Postgres.prepare(folder / "server", durable=False)
    with running(server.part(folder / "log")):
        yield server


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """The name of a database that the migrations built, to which nobody connects."""
    postgres.create_database(TEMPLATE)
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, "THAW_DATABASE_URL": postgres.url(TEMPLATE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"the migrations failed:\n{done.stdout}{done.stderr}"
    return TEMPLATE


@pytest.fixture
def database_url(postgres: Postgres, template: str) -> Iterator[str]:
    """The address of a migrated, empty database of this test's own."""
    name = f"test_{next(_numbers)}"
    postgres.create_database(name, template)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A running Redis with the settings of the queue."""
    folder = tmp_path_factory.mktemp("redis")
    server = Redis.prepare(folder / "server")
    with running(server.part(folder / "log")):
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The address of an empty Redis, in Celery's form."""
    client = redis_server.client()
    client.flushall()
    client.close()
    return redis_server.url()


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """The address of an empty artifact store in a local folder."""
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    return folder.as_uri()


@pytest.fixture
def settings(database_url: str, redis_url: str, store_url: str, tmp_path: Path) -> Settings:
    """Settings of a process on this test's own database, queue and store."""
    from shared.settings import Settings  # noqa: PLC0415 - most tests need none of it

    return Settings(
        database_url=database_url, redis_url=redis_url, store_url=store_url, work_dir=tmp_path / "work"
    )
