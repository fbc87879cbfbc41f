"""Every write request: who asked for what, from where, and how it ended, in a row.

What is carried out is written down in its own transaction (`AuditedRoute`). What is refused has none, nor has
an upload, whose bytes lie elsewhere: `AuditTrail` writes these before the answer goes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi.routing import APIRoute
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.db.audit import Audited, write_down
from shared.db.engine import transaction
from shared.db.keys import Caller

log = structlog.get_logger(__name__)

CALLER = "thaw.caller"
"""Where in the scope of a request `api/deps.py` leaves whose key came, good or not."""
SESSION = "thaw.session"
"""And the session of its transaction."""
_WRITTEN = "thaw.audited"
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_STORES_NOTHING = frozenset({"/v1/fine_tuning/plan"})
_MOST_CHARACTERS = 500
# Every object of ours begins with its id.
_ID_IN_ANSWER = re.compile(rb'\{"id":"([A-Za-z0-9_-]{1,100})"')


class AuditedRoute(APIRoute):
    """Adds the row of a write request to the transaction that carries it out: both are there, or neither."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_audited(request: Request) -> Response:
            response = await handle(request)
            if request.method in _WRITES and SESSION in request.scope:
                await run_in_threadpool(_write_along, request.scope, response)
            return response

        return handle_audited


def _write_along(scope: Scope, response: Response) -> None:
    entry = _entry(scope, response.status_code, bytes(response.body))
    if entry is not None:
        session: Session = scope[SESSION]
        write_down(session, entry)
        session.flush()
        scope[_WRITTEN] = response.status_code


class AuditTrail:
    """Holds the answer to a write request back until its row is committed.

    A row that cannot be written goes to the log instead, and the answer is sent: what it tells has happened.
    """

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _WRITES:
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def send_audited(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                await self._record(scope, int(start["status"]), message.get("body", b""))
                await send(start)
                start = None
            await send(message)

        try:
            await self._app(scope, receive, send_audited)
        except Exception:
            # The answer to what nobody expected is made outside of all this.
            await self._record(scope, HTTPStatus.INTERNAL_SERVER_ERROR.value, b"")
            raise

    async def _record(self, scope: Scope, status: int, body: bytes) -> None:
        entry = _entry(scope, status, body)
        # Where the transaction failed with its row, the answer has become another.
        if entry is None or scope.get(_WRITTEN) == status:
            return
        try:
            await run_in_threadpool(self._write, entry)
        except Exception:  # whatever it is: the request has been carried out, and its answer must go out
            log.exception("not in the audit log", **entry.as_text())

    def _write(self, entry: Audited) -> None:
        with transaction(self._engine) as session:
            write_down(session, entry)


def _entry(scope: Scope, status: int, body: bytes) -> Audited | None:
    """What to write down; None where there is nothing, or nobody, to tell of."""
    route = getattr(scope.get("route"), "path", None)
    caller: Caller | None = scope.get(CALLER)
    # Without a key that is known there is nobody to name, and rows would be anybody's to make.
    if route is None or route in _STORES_NOTHING or caller is None:
        return None
    client = scope.get("client")
    return Audited(
        caller=caller,
        method=scope["method"],
        route=route,
        target=_target(scope.get("path_params", {}), body if status < 400 else b""),
        client=str(client[0]) if client else None,
        status=status,
        request_id=scope["request_id"],
    )


def _target(places: Mapping[str, Any], body: bytes) -> str | None:
    """What the path names first; where it names nothing, what was made."""
    if places:
        return str(next(iter(places.values())))[:_MOST_CHARACTERS]
    made = _ID_IN_ANSWER.match(body)
    return made[1].decode() if made else None
