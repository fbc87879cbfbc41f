"""The gates of the chaos runs: what passes, what is cut, what is held and let go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from harness.gates import Gate, Gates, State


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Path]:
    """A server that answers every byte with itself."""
    path = tmp_path / "echo"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    Thread(target=_serve, args=(server,), daemon=True).start()
    yield path
    server.close()


def _serve(server: socket.socket) -> None:
    while True:
        try:
            connection = server.accept()[0]
        except OSError:
            return
        Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(100):
            connection.sendall(data)


@pytest.fixture
def gate(echo: Path, tmp_path: Path) -> Iterator[Gate]:
    with Gates() as gates:
        yield gates.make(tmp_path / "gate", echo)


def knock(gate: Gate, within_s: float = 5.0) -> socket.socket:
    assert isinstance(gate.at, Path)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(within_s)
    client.connect(str(gate.at))
    return client


def test_an_open_gate_passes_both_ways(gate: Gate) -> None:
    with knock(gate) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


def test_a_gate_that_shuts_cuts_what_is_connected_and_whoever_comes(gate: Gate) -> None:
    with knock(gate) as client:
        client.sendall(b"1")
        assert client.recv(1) == b"1"
        gate.set(State.SHUT)
        assert is_cut(client)
    with knock(gate) as late:
        assert is_cut(late)
    gate.set(State.OPEN)
    with knock(gate) as later:
        later.sendall(b"2")
        assert later.recv(1) == b"2"


def test_a_gate_that_holds_says_nothing_and_lets_go_what_it_held(gate: Gate) -> None:
    with knock(gate, within_s=0.3) as client:
        client.sendall(b"1")
        assert client.recv(1) == b"1"
        gate.set(State.HOLD)
        client.sendall(b"2")
        with pytest.raises(TimeoutError):
            client.recv(1)
        with knock(gate, within_s=5.0) as newcomer:
            newcomer.sendall(b"3")
            gate.set(State.OPEN)
            client.settimeout(5.0)
            assert client.recv(1) == b"2"
            assert newcomer.recv(1) == b"3"


def is_cut(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True
