"""Around every request: its id, its line in the log, its count and duration, and bounds of its body."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import refusal
from api.metrics import ApiMetrics
from shared.settings import Settings

log = structlog.get_logger(__name__)

UPLOAD_PATH = "/v1/files"
# A form is its file, its other fields, and the lines between them.
_FORM_OVERHEAD_BYTES = 64 * 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
# From one piece of a body to the next.
_BODY_GOES_ON_WITHIN_S = 60.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestContext:
    """Names each request: the client's X-Request-Id, or a new one, goes into the answer and the log."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status, began = HTTPStatus.INTERNAL_SERVER_ERROR.value, time.perf_counter()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = getattr(scope.get("route"), "path", "unknown")
            seconds = time.perf_counter() - began
            self._metrics.answered(method, route, status, seconds)
            log.info("answered", method=method, path=scope["path"], status=status, seconds=round(seconds, 4))
            structlog.contextvars.unbind_contextvars("request_id")


class BodyCap:
    """Refuses a body that is too long: at once where its length is stated, else when it passes the cap.

    And one that does not go on: it would wait for ever.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cap = self._cap(scope)
        stated = Headers(scope=scope).get("content-length", "")
        if stated.isdecimal() and int(stated) > cap:
            await refusal(413, _too_long(cap), code="too_large")(scope, receive, send)
            return
        seen, goes_on = 0, True

        async def receive_capped() -> Message:
            nonlocal seen, goes_on
            # Behind the body, who receives waits for the client to leave.
            message = await (_soon(receive) if goes_on else receive())
            seen += len(message.get("body", b""))
            goes_on = message.get("more_body", False)
            if seen > cap:
                raise HTTPException(413, _too_long(cap))
            return message

        await self._app(scope, receive_capped, send)

    def _cap(self, scope: Scope) -> int:
        if scope["path"] == UPLOAD_PATH:
            return self._settings.max_upload_bytes + _FORM_OVERHEAD_BYTES
        return self._settings.max_body_bytes


async def _soon(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(_BODY_GOES_ON_WITHIN_S):
            return await receive()
    except TimeoutError:
        raise HTTPException(
            408, f"for {_BODY_GOES_ON_WITHIN_S:g} s nothing more of the request's body came"
        ) from None


def _too_long(cap: int) -> str:
    return f"the request's body is too long: at most {cap:,} bytes are taken here"


def _request_id(scope: Scope) -> str:
    asked = Headers(scope=scope).get("x-request-id", "")
    return asked if _REQUEST_ID.match(asked) else uuid.uuid4().hex
