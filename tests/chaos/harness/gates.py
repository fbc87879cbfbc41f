"""Doors between a process and a server: open, shut (connections are cut), or holding what passes.

A gate that holds takes bytes and connections and passes none on; opened again it lets go what it held, as a
network does that was away. All gates of a run live on one event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

_CHUNK = 65_536

# A Unix socket's path, or a host and a port.
Address = Path | tuple[str, int]


class State(StrEnum):
    """What a gate does with what comes."""

    OPEN = "open"
    SHUT = "shut"
    HOLD = "hold"


@dataclass
class Gate:
    """One address that leads to `target`. Its methods but `set` belong to the loop's thread."""

    at: Address
    target: Address
    loop: asyncio.AbstractEventLoop
    state: State = State.OPEN
    _passable: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def set(self, state: State) -> None:
        """From any thread; done when it returns."""
        asyncio.run_coroutine_threadsafe(self._set(state), self.loop).result()

    async def open(self) -> None:
        self._passable.set()
        if isinstance(self.at, Path):
            await asyncio.start_unix_server(self._serve, self.at)
        else:
            await asyncio.start_server(self._serve, *self.at)

    async def _set(self, state: State) -> None:
        self.state = state
        if state is State.HOLD:
            self._passable.clear()
            return
        if state is State.SHUT:
            for writer in list(self._writers):
                writer.transport.abort()
        self._passable.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._passable.wait()
            if self.state is State.SHUT:
                return
            await self._connect(reader, writer)
        except OSError:
            return  # one end is gone, so the other is cut
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self.target, Path):
            answers, onward = await asyncio.open_unix_connection(self.target)
        else:
            answers, onward = await asyncio.open_connection(*self.target)
        self._writers.add(onward)
        try:
            there = asyncio.create_task(self._pass(reader, onward))
            back = asyncio.create_task(self._pass(answers, writer))
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            for task in (there, back):
                task.cancel()
        finally:
            self._writers.discard(onward)
            onward.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                await self._passable.wait()
                sink.write(data)
                await sink.drain()
            await self._passable.wait()


class Gates:
    """Makes gates, and closes all of them at the end of the block."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="gates", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(_end_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def make(self, at: Address, target: Address) -> Gate:
        """An open gate that listens at `at`."""
        gate = Gate(at, target, self._loop)
        asyncio.run_coroutine_threadsafe(gate.open(), self._loop).result()
        return gate


async def _end_all() -> None:
    """What still passes is cut off, while the loop can see to it."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
