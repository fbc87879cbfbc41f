"""The line in front of the API: a head without end, or one that never comes, is not waited for."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest
import uvicorn
from waiting import eventually

from api import connections
from api.connections import MOST_HEAD_BYTES, BoundedHttp


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a server answers with the length of what it was sent."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(answer, http=BoundedHttp, ws="none", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        eventually(lambda: server.started)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(timeout=30)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    length, goes_on = 0, True
    while goes_on:
        message = await receive()
        length += len(message.get("body", b""))
        goes_on = message.get("more_body", False)
    body = str(length).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /", b"a" * 1000),
        (b"GET / HTTP/1.1\r\nX: ", b"a" * 1000),
        (b"GET / HTTP/1.1\r\n", b"Another: header\r\n" * 50),
    ],
)
def test_a_head_without_end_is_refused(port: int, start: bytes, piece: bytes) -> None:
    sent, told = flooded(port, start, piece)

    assert sent < 40 * MOST_HEAD_BYTES
    head, _, body = told.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"65,536 bytes" in json.loads(body)["error"]["message"].encode()


@pytest.mark.parametrize("start", [b"0\r\nTrailer: ", b"1;extension="])
def test_what_stands_around_a_body_has_an_end_too(port: int, start: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent, told = flooded(port, head + start, b"a" * 1000)

    assert sent < 40 * MOST_HEAD_BYTES
    assert told == b""


def test_what_is_long_by_its_body_or_by_its_number_goes_through(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        for _ in range(2):
            line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
            assert line.recv(1000).endswith(b"1000000")
        line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20_000):
            line.sendall(b"1\r\nx\r\n")
        line.sendall(b"0\r\n\r\n")
        assert line.recv(1000).endswith(b"20000")


def test_what_is_no_request_is_told_so_as_any_refusal_is(port: int) -> None:
    for nonsense in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\x7fb\x00\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
            line.sendall(nonsense)
            head, _, body = line.recv(10_000).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert json.loads(body)["error"]["code"] == "bad_request"


def test_a_head_that_does_not_come_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_WITHIN_S", 0.2)
    for start in (b"", b"GET / HTTP/1.1\r\nHost:"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
            line.sendall(start)
            assert line.recv(1000).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert line.recv(1000) == b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert line.recv(1000).startswith(b"HTTP/1.1 200")
        line.sendall(b"G")
        assert line.recv(1000).startswith(b"HTTP/1.1 408"), "the second one's head is waited for as long"


def flooded(port: int, start: bytes, piece: bytes) -> tuple[int, bytes]:
    """How many bytes were taken of an endless request, and what came back."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        try:
            line.sendall(start)
            for more in repeat(piece, 100 * MOST_HEAD_BYTES // len(piece)):
                line.sendall(more)
                sent += len(more)
        except OSError:
            pass  # it has hung up
        try:
            return sent, line.recv(10_000)
        except ConnectionError:
            return sent, b""
