"""The one table from kinds of error to HTTP, and the envelope that every refusal comes in."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.validation import explain
from shared.domain.disk_full import is_disk_full
from shared.domain.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    ThawError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 5
_SHOWN_OF_EACH_END = 2_000
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class ErrorBody(BaseModel):
    """What was wrong, where in the request, and a stable word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """Every refusal."""

    error: ErrorBody


# The first class that fits counts, so a narrower one stands before its parent.
_STATUS: tuple[tuple[type[ThawError], HTTPStatus], ...] = (
    (Invalid, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (NotFound, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)
_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
}
_HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": str(RETRY_AFTER_S)},
}
_AWAY = (OperationalError, InterfaceError, PoolTimeout)


def install(app: FastAPI) -> None:
    """Have every error leave in the envelope."""
    app.add_exception_handler(ThawError, _typed)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _of_the_framework)
    for kind in _AWAY:
        app.add_exception_handler(kind, _database_away)
    app.add_exception_handler(DBAPIError, _database_refused)
    app.add_exception_handler(ClientDisconnect, _cut_off)
    app.add_exception_handler(OSError, _of_the_machine)
    app.add_exception_handler(Exception, _unexpected)


def refusal(status: int, message: str, param: str | None = None, code: str | None = None) -> JSONResponse:
    """The envelope with its status."""
    known = HTTPStatus(status)
    message, param = _presentable(message), _presentable(param) if param is not None else None
    kind = _TYPES.get(known) or ("server_error" if status >= 500 else "invalid_request_error")
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, _HEADERS.get(known))


def _presentable(text: str) -> str:
    r"""The text as UTF-8 can carry it: JSON may bring half a character, as \ud800, into a message.

    One that repeats a megabyte of the request loses its middle.
    """
    if len(text) > 2 * _SHOWN_OF_EACH_END:
        text = f"{text[:_SHOWN_OF_EACH_END]} ... {text[-_SHOWN_OF_EACH_END:]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _typed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ThawError)
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return refusal(status, error.message, error.param, error.code)
    return _unexpected(request, error)


def _unreadable(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    explained = explain(error, request.scope["route"])
    status = HTTPStatus.BAD_REQUEST if explained.is_unreadable else HTTPStatus.UNPROCESSABLE_ENTITY
    return refusal(status, explained.message, explained.param, explained.code)


def _of_the_framework(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    asked = f"{request.method} {request.url.path}"
    message = {
        HTTPStatus.NOT_FOUND: f"{asked} is no route of this server; /openapi.json lists them all",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{asked} is not allowed here; the Allow header says what is",
        HTTPStatus.BAD_REQUEST: f"the request's body cannot be read: {error.detail}",
    }.get(status, str(error.detail))
    response = refusal(status, message, code=status.phrase.lower().replace(" ", "_"))
    response.headers.update(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(_allowed(request))
    return response


def _allowed(request: Request) -> Iterator[str]:
    """The methods of every route at the address; the framework knows those of the first one."""
    for method in _METHODS:
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            yield method


def _database_away(request: Request, error: Exception) -> JSONResponse:
    log.warning("database away", error=str(error).splitlines()[0], path=request.url.path)
    return refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"the database cannot be reached just now; try again in {RETRY_AFTER_S} seconds",
        code="database_unavailable",
    )


def _database_refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DBAPIError)
    if error.connection_invalidated:
        return _database_away(request, error)
    if isinstance(error, DataError):
        return refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "the request holds a character or a number that cannot be stored",
            code="invalid_value",
        )
    return _unexpected(request, error)


def _cut_off(request: Request, error: Exception) -> JSONResponse:
    """For the metrics, the log and the audit log: nobody is there any more to read it."""
    return refusal(HTTPStatus.BAD_REQUEST, "the request ended before its body did", code="incomplete_body")


def _of_the_machine(request: Request, error: Exception) -> JSONResponse:
    if not is_disk_full(error):
        return _unexpected(request, error)
    log.error("no room for what was sent", path=request.url.path, error=str(error))
    return refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the server has no room just now for what was sent; its operator gives TMPDIR of the API more",
        code="disk_full",
    )


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id = request.scope.get("request_id")
    log.error("unexpected error", path=request.url.path, request_id=request_id, exc_info=error)
    response = refusal(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"something went wrong on our side; the server's log has it under request id {request_id}",
        code="internal_error",
    )
    # This answer leaves from outside the middleware that names the request in every other one.
    if request_id:
        response.headers["X-Request-Id"] = request_id
    return response


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides its result, for the OpenAPI document."""
    return {status: {"model": ErrorEnvelope, "description": HTTPStatus(status).phrase} for status in statuses}
