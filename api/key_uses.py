"""When keys were last used: written down behind the requests' backs, once a minute a key at most."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Lock

import structlog
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from shared.db.engine import transaction
from shared.db.keys import FoundKey, note_use

log = structlog.get_logger(__name__)

PAUSE_S = 2.0


class KeyUses:
    """Keys whose use is to be noted, all in one statement. No request waits for it, or fails by it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._used: set[str] = set()
        # Keys are looked up in threads.
        self._lock = Lock()
        self._writer: asyncio.Task[None] | None = None

    def saw(self, found: FoundKey) -> None:
        """A request came with this key."""
        if found.to_note:
            with self._lock:
                self._used.add(found.caller.key_id)

    def start(self) -> None:
        """Begin to write, on the running loop."""
        self._writer = asyncio.create_task(self._write_on())

    async def stop(self) -> None:
        """End the writing, with what was seen last."""
        if self._writer is not None:
            self._writer.cancel()
            with suppress(asyncio.CancelledError):
                await self._writer
        await self._write()

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            await self._write()

    async def _write(self) -> None:
        with self._lock:
            used, self._used = self._used, set()
        if not used:
            return
        try:
            await run_in_threadpool(self._note, used)
        except Exception:  # whatever it is: the next use of the key is noted again
            log.warning("uses of keys are not noted", keys=len(used), exc_info=True)

    def _note(self, used: set[str]) -> None:
        with transaction(self._engine) as session:
            note_use(session, used)
