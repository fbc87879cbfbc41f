"""Alembic's environment: the database of THAW_DATABASE_URL, the tables of shared/db/models."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine

from shared.db.models import Job


def _run() -> None:
    url = os.environ.get("THAW_DATABASE_URL")
    if not url:
        raise SystemExit("set THAW_DATABASE_URL, e.g. postgresql+psycopg://user:password@host/database")
    with create_engine(url).connect() as connection:
        context.configure(connection=connection, target_metadata=Job.metadata, compare_server_default=True)
        with context.begin_transaction():
            # Two starts at once must not both build the tables.
            connection.exec_driver_sql("select pg_advisory_xact_lock(7241001)")
            context.run_migrations()


_run()
