"""The commands that deploy/ gives the API's image, run as they stand there on a database without a table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from devstack.postgres import Postgres
from shared.db.engine import make_engine, transaction
from shared.db.keys import find_caller

ROOT = Path(__file__).resolve().parents[2]
NAME = "of_the_migration_job"

pytestmark = pytest.mark.slow


@pytest.fixture
def empty_database(postgres: Postgres) -> Iterator[str]:
    postgres.create_database(NAME)
    yield postgres.url(NAME)
    postgres.drop_database(NAME)


@pytest.fixture
def run(empty_database: str) -> Callable[..., str]:
    """Runs a command as in the image: in the folder of the sources, where `python` has their packages."""

    def run_it(*command: str) -> str:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "THAW_DATABASE_URL": empty_database,
            "THAW_REDIS_URL": "redis://127.0.0.1:9/0",
            "THAW_STORE_URL": "s3://bucket/prefix",
        }
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run_it


def test_the_job_makes_tables_and_team_and_leaves_the_key_to_whoever_asks(
    run: Callable[..., str], empty_database: str
) -> None:
    (job,) = yaml.safe_load_all((ROOT / "deploy" / "base" / "migrate.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    told = (ROOT / "docs" / "kubernetes.md").read_text()
    (asked,) = re.findall(r"exec deploy/api -- (.*?) {2,}#", told)

    printed = [run(*container["command"]) for _ in range(2)]  # as at the next version
    key = run(*asked.split()).strip()

    assert printed == ["", ""], "nothing that a log must not have"
    engine = make_engine(empty_database)
    with transaction(engine) as session:
        caller = find_caller(session, key)
        n_keys = session.connection().exec_driver_sql("select count(*) from api_keys").scalar_one()
    engine.dispose()
    assert caller is not None
    assert (caller.role, n_keys) == ("admin", 1)
