"""Events as they happen, for any number of followers, from one poller a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from shared.db.engine import transaction
from shared.db.followed import Cursor, News, news_of
from shared.db.models import Event

log = structlog.get_logger(__name__)

POLL_S = 0.5
_BATCH = 200


@dataclass(eq=False)
class _Follower:
    """One client's place in a job's events. It is asked for only once its inbox is empty again."""

    cursor: Cursor
    inbox: asyncio.Queue[News] = field(default_factory=lambda: asyncio.Queue(maxsize=1))


class EventFeed:
    """Followers hold no session; the poller asks once for all who wait. A slow client delays only itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._followers: set[_Follower] = set()
        self._wanted = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to poll, on the running loop; nothing is asked while nobody follows."""
        self._poller = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """End the poller."""
        if self._poller is not None:
            self._poller.cancel()
            with suppress(asyncio.CancelledError):
                await self._poller

    async def follow(self, job_id: str, after: int) -> AsyncIterator[Event]:
        """Every event of the job behind number `after`, each once and in order, until the job is over."""
        with self._follower(job_id, after) as follower:
            while True:
                news = await follower.inbox.get()
                for event in news.events:
                    if event.seq > follower.cursor.seq:
                        follower.cursor = Cursor(job_id, event.seq)
                        yield event
                if news.is_last:
                    return

    async def _poll(self) -> None:
        while True:
            await self._wanted.wait()
            waiting = [follower for follower in self._followers if follower.inbox.empty()]
            cursors = {follower.cursor for follower in waiting}
            try:
                news = await run_in_threadpool(self._read, cursors)
            except Exception:  # whatever it is: a poller that ends leaves every stream hanging
                log.exception("events cannot be read, trying again")
                news = {}
            for follower in waiting:
                if follower.cursor in news:
                    follower.inbox.put_nowait(news[follower.cursor])
            await asyncio.sleep(POLL_S)

    def _read(self, cursors: set[Cursor]) -> dict[Cursor, News]:
        with transaction(self._engine) as session:
            return news_of(session, cursors, _BATCH)

    @contextmanager
    def _follower(self, job_id: str, seq: int) -> Iterator[_Follower]:
        follower = _Follower(Cursor(job_id, seq))
        self._followers.add(follower)
        self._wanted.set()
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            if not self._followers:
                self._wanted.clear()
