"""The edge: one step is one transaction, made again when the database asks for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from shared.db.engine import transaction

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_TRIES = 3
_DEADLOCK, _SERIALIZATION = "40P01", "40001"


def run_step(
    engine: Engine,
    step: Callable[Concatenate[Session, Parameters], Result],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """Run `step` in a transaction and commit. A deadlock or serialization failure: up to three tries."""
    for _ in range(_TRIES - 1):
        try:
            return _once(engine, step, *args, **kwargs)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in (_DEADLOCK, _SERIALIZATION):
                raise
    return _once(engine, step, *args, **kwargs)


def _once(
    engine: Engine,
    step: Callable[Concatenate[Session, Parameters], Result],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    with transaction(engine) as session:
        return step(session, *args, **kwargs)
