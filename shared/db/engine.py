"""The engine, and sessions that the edge commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session

from shared.db.connection import BoundedConnection, connect

# A connection that hangs must not hold rows, locks or a worker: see "Sessions" in the design.
_OPTIONS = "-c idle_in_transaction_session_timeout=15000 -c lock_timeout=5000"
_ANSWER_WITHIN_S = 30.0
# The server's own refusal of a long statement comes first, where the line carries it.
_ANSWER_SLACK_S = 2.0


def make_engine(url: str, *, statement_timeout_s: float | None = None, pool_size: int = 5) -> Engine:
    """An engine on Postgres. `statement_timeout_s` bounds every statement; renewals use 5.

    No call waits longer for an answer than 2 s beyond that, or than 30 s where no statement is bounded.
    """
    options, answer_within_s = _OPTIONS, _ANSWER_WITHIN_S
    if statement_timeout_s is not None:
        options += f" -c statement_timeout={int(statement_timeout_s * 1000)}"
        answer_within_s = statement_timeout_s + _ANSWER_SLACK_S
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=10,
        pool_pre_ping=True,
        hide_parameters=True,  # what people sent has no place in a log
        connect_args={"options": options},
    )

    @event.listens_for(engine, "do_connect")
    def bounded(dialect: Any, record: Any, args: Any, parameters: dict[str, Any]) -> BoundedConnection:
        return connect(parameters, answer_within_s=answer_within_s)

    return engine


def for_single_reads(engine: Engine) -> Engine:
    """The same engine for statements that stand alone and only read: they wait for no begin and no commit."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One short transaction: committed when the block ends well, rolled back otherwise."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session
