"""Around every write request: who asked for what, from where, and how it ended, in a row of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.db.audit import Audited, write_down
from shared.db.engine import transaction
from shared.db.keys import Caller

log = structlog.get_logger(__name__)

CALLER = "thaw.caller"
"""Where in the scope of a request `api/deps.py` leaves whose key came, good or not."""
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_STORES_NOTHING = frozenset({"/v1/fine_tuning/plan"})
_MOST_CHARACTERS = 500
# Every object of ours begins with its id.
_ID_IN_ANSWER = re.compile(rb'\{"id":"([A-Za-z0-9_-]{1,100})"')


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
        route = getattr(scope.get("route"), "path", None)
        caller: Caller | None = scope.get(CALLER)
        # Without a key that is known there is nobody to name, and rows would be anybody's to make.
        if route is None or route in _STORES_NOTHING or caller is None:
            return
        entry = _entry(scope, caller, route, status, body)
        try:
            await run_in_threadpool(self._write, entry)
        except Exception:  # whatever it is: the request has been carried out, and its answer must go out
            log.exception("not in the audit log", **entry.as_text())

    def _write(self, entry: Audited) -> None:
        with transaction(self._engine) as session:
            write_down(session, entry)


def _entry(scope: Scope, caller: Caller, route: str, status: int, body: bytes) -> Audited:
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
