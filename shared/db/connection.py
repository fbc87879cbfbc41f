"""A connection to Postgres on which no call waits for ever, whatever becomes of the line."""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

Answer = TypeVar("Answer")

# What a dead host or a cut line costs: the kernel finds both. `tcp_user_timeout` is for what was sent and not
# acknowledged, the keepalives are for a call that has sent all and waits.
_LINE = {
    "connect_timeout": 3,
    "tcp_user_timeout": 5000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


class BoundedConnection(psycopg.Connection[TupleRow]):
    """Closes itself when the server leaves a call without an answer for `answer_within_s`.

    A proxy that takes all and passes on nothing keeps the line alive, and no setting of the server or the
    kernel helps.
    """

    answer_within_s = 30.0

    def wait(self, gen: PQGen[Answer], interval: float = 0.1, timeout: float | None = None) -> Answer:
        """As psycopg's own, with a limit where it has none. Raises psycopg.OperationalError."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_within_s)
        except psycopg.errors._WaitTimeout as late:
            self.pgconn.finish()  # an answer that came now would be taken for that of another question
            message = f"the database left a call unanswered for {self.answer_within_s:g} s"
            raise psycopg.OperationalError(message) from late


def connect(parameters: dict[str, Any], *, answer_within_s: float) -> BoundedConnection:
    """A new connection. Raises psycopg.OperationalError within some seconds where there is none to be had."""
    connection = BoundedConnection.connect(**{**_LINE, **parameters})
    connection.answer_within_s = answer_within_s
    return connection
