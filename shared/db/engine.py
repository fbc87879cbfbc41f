"""The engine, and sessions that the edge commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

# A connection that hangs must not hold rows, locks or a worker: see "Sessions" in the design.
_OPTIONS = "-c idle_in_transaction_session_timeout=15000 -c lock_timeout=5000"


def make_engine(url: str, *, statement_timeout_s: float | None = None, pool_size: int = 5) -> Engine:
    """An engine on Postgres. `statement_timeout_s` bounds every statement; renewals use 5."""
    options = _OPTIONS
    if statement_timeout_s is not None:
        options += f" -c statement_timeout={int(statement_timeout_s * 1000)}"
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=10,
        pool_pre_ping=True,
        hide_parameters=True,  # what people sent has no place in a log
        connect_args={"connect_timeout": 3, "tcp_user_timeout": 5000, "options": options},
    )


def for_single_reads(engine: Engine) -> Engine:
    """The same engine for statements that stand alone and only read: they wait for no begin and no commit."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One short transaction: committed when the block ends well, rolled back otherwise."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session
