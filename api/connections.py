"""HTTP as it comes off the line: what never becomes a request must not fill the memory, or wait for ever.

uvicorn's own bounds begin with the request's body: a client without any key could send a head without end.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import refusal

MOST_HEAD_BYTES = 64 * 1024
HEAD_WITHIN_S = 30.0


class BoundedHttp(HttpToolsProtocol):
    """Ends a connection whose request does not get on: many bytes that are no body, or a slow head."""

    _n_without_progress = 0
    _deadline: asyncio.TimerHandle | None = None

    # uvicorn narrows asyncio's BaseTransport here as well: what it serves are streams.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._n_without_progress += len(data)
        super().data_received(data)
        # Whatever completed something has set it back: a head, a piece of the body, or the whole of it.
        if self._n_without_progress > MOST_HEAD_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"a request's address and headers may have {MOST_HEAD_BYTES:,} bytes together",
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._head_is_here()
        self._n_without_progress = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._n_without_progress = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._n_without_progress = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "this is no HTTP request: its head cannot be read")

    def _await_head(self) -> None:
        self._head_is_here()
        self._deadline = self.loop.call_later(HEAD_WITHIN_S, self._is_too_slow)

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_too_slow(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT, f"the request's headers did not come within {HEAD_WITHIN_S:g} s"
        )

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """In the envelope of every refusal, unless another answer has begun, which it would end up in."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            answer = refusal(status, message, code=status.phrase.lower().replace(" ", "_"))
            self.transport.write(_on_the_line(status, answer.body, dict(answer.headers)))
        self.transport.close()


def _on_the_line(status: HTTPStatus, body: Any, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + bytes(body)
