"""Writes to the database that are made again until it answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy import Engine, exc
from sqlalchemy.orm import Session

from shared.db.engine import transaction

# The database is away, restarting, failing over or busy. Anything else is a fault of ours and is raised.
PASSING = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)
_PAUSE_S = 1.0
T = TypeVar("T")


def until_answered(engine: Engine, step: Callable[[Session], T], give_up: Callable[[], None]) -> T:
    """Run `step` in a transaction of its own, again while the database is away; a step finds its own success.

    `give_up` is called before each try; what it raises ends it.
    """
    while True:
        give_up()
        try:
            with transaction(engine) as session:
                return step(session)
        except PASSING as error:
            structlog.get_logger(__name__).warning("database_away", error=str(error).partition("\n")[0])
            time.sleep(_PAUSE_S)
