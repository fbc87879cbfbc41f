"""Events as they happen, for any number of followers, from one poller a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from shared.db.engine import transaction
from shared.db.followed import Cursor, News, news_of
from shared.db.keys import valid_among
from shared.db.models import Event

log = structlog.get_logger(__name__)

POLL_S = 0.5
_BATCH = 200


@dataclass(eq=False)
class _Follower:
    """One client's place in a job's events. It is asked for only once its inbox is empty again.

    `is_shut`: its key was revoked or has expired, and it is told nothing more.
    """

    cursor: Cursor
    key_id: str
    inbox: asyncio.Queue[News] = field(default_factory=lambda: asyncio.Queue(maxsize=1))
    is_shut: bool = False

    def shut(self) -> None:
        self.is_shut = True
        if self.inbox.empty():
            self.inbox.put_nowait(News([], is_last=True))


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

    async def follow(self, job_id: str, after: int, key_id: str) -> AsyncIterator[Event]:
        """Every event of the job behind number `after`, each once and in order, until the job is over.

        Or until the key that it was asked for with is good no more, which is looked at with every poll.
        """
        with self._follower(job_id, after, key_id) as follower:
            while not follower.is_shut:
                news = await follower.inbox.get()
                for event in news.events:
                    if follower.is_shut:
                        return
                    if event.seq > follower.cursor.seq:
                        follower.cursor = Cursor(job_id, event.seq)
                        yield event
                if news.is_last:
                    return

    async def _poll(self) -> None:
        while True:
            await self._wanted.wait()
            followers = list(self._followers)
            waiting = [follower for follower in followers if follower.inbox.empty()]
            try:
                keys, news = await run_in_threadpool(self._read, followers, waiting)
            except Exception:  # whatever it is: a poller that ends leaves every stream hanging
                log.exception("events cannot be read, trying again")
            else:
                _hand_out(followers, waiting, keys, news)
            await asyncio.sleep(POLL_S)

    def _read(
        self, followers: Collection[_Follower], waiting: Collection[_Follower]
    ) -> tuple[set[str], dict[Cursor, News]]:
        """The keys that are good, and what is new for those who wait."""
        with transaction(self._engine) as session:
            keys = valid_among(session, {follower.key_id for follower in followers})
            return keys, news_of(session, {follower.cursor for follower in waiting}, _BATCH)

    @contextmanager
    def _follower(self, job_id: str, seq: int, key_id: str) -> Iterator[_Follower]:
        follower = _Follower(Cursor(job_id, seq), key_id)
        self._followers.add(follower)
        self._wanted.set()
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            if not self._followers:
                self._wanted.clear()


def _hand_out(
    followers: Collection[_Follower],
    waiting: Collection[_Follower],
    keys: set[str],
    news: Mapping[Cursor, News],
) -> None:
    for follower in followers:
        if follower.key_id not in keys:
            follower.shut()
    for follower in waiting:
        if follower.cursor in news and not follower.is_shut:
            follower.inbox.put_nowait(news[follower.cursor])
