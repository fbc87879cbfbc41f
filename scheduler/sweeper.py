"""The sweep of the store, round by round: looks at some files, removes those that may go, says how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Thread

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from scheduler.erasing import erase_gone_teams
from shared.artifacts import ArtifactStore, Entry, StoreOptions, open_store
from shared.artifacts.keys import place_of
from shared.db.steps import run_step
from shared.db.sweeping import dropped_checkpoints, forget_checkpoint, rows_about, sweep_lock
from shared.domain.errors import ThawError
from shared.domain.sweeping import GOES, Stored, Verdict, judge
from shared.settings import Settings

_BATCH = 1000
_DROPPED_A_ROUND = 100


@dataclass
class Swept:
    """What a round has seen: how many files and bytes by verdict. `is_whole`: it came to the store's end."""

    files: Counter[Verdict] = field(default_factory=Counter)
    bytes: Counter[Verdict] = field(default_factory=Counter)
    is_whole: bool = False

    def add(self, stored: Stored, verdict: Verdict) -> None:
        """One more file."""
        self.files[verdict] += 1
        self.bytes[verdict] += stored.bytes

    @property
    def n_gone(self) -> int:
        return sum(self.files[verdict] for verdict in GOES)

    @property
    def bytes_gone(self) -> int:
        return sum(self.bytes[verdict] for verdict in GOES)


class Sweeper:
    """Walks over the whole store in the order of keys, some objects a round, and then anew."""

    def __init__(self, engine: Engine, store: ArtifactStore, settings: Settings) -> None:
        self._engine = engine
        self._store = store
        self._grace_s = settings.sweep_grace_s
        self._objects = settings.sweep_objects
        self._behind = ""

    def round(self) -> Swept | None:
        """One round; None while another copy of the scheduler sweeps. Raises StoreUnavailable, DBAPIError."""
        with sweep_lock(self._engine) as is_ours:
            if not is_ours:
                return None
            swept = Swept()
            self._remove_dropped(swept)
            page = self._store.page(after=self._behind, limit=self._objects)
            self._remove(page, swept)
            swept.is_whole = len(page) < self._objects
            self._behind = "" if swept.is_whole else page[-1].key
            return swept

    def judged(self) -> Iterator[tuple[Stored, Verdict]]:
        """Every object of the store and what would become of it; nothing is removed."""
        behind = ""
        while page := self._store.page(after=behind, limit=self._objects):
            for batch in _batches(page):
                yield from self._judge(batch)
            behind = page[-1].key

    def _judge(self, entries: Sequence[Entry]) -> list[tuple[Stored, Verdict]]:
        now = datetime.now(UTC)
        found = [
            Stored(one.key, one.size, (now - one.modified).total_seconds(), place_of(one.key))
            for one in entries
        ]
        rows = run_step(self._engine, rows_about, [one.place for one in found if one.place is not None])
        return [(one, judge(one, rows, grace_s=self._grace_s)) for one in found]

    def _remove_dropped(self, swept: Swept) -> None:
        """Dropped checkpoints by their rows, so that they do not wait for the walk; the row goes last."""
        dropped = run_step(self._engine, dropped_checkpoints, grace_s=self._grace_s, limit=_DROPPED_A_ROUND)
        for checkpoint_id, prefix in dropped:
            self._remove(self._store.list(prefix), swept)
            if not self._store.list(prefix):
                run_step(self._engine, forget_checkpoint, checkpoint_id)

    def _remove(self, entries: Sequence[Entry], swept: Swept) -> None:
        for batch in _batches(entries):
            judged = self._judge(batch)
            self._store.delete_all([stored.key for stored, verdict in judged if verdict in GOES])
            for stored, verdict in judged:
                swept.add(stored, verdict)


def _batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """As many as the database is asked about at once."""
    return (entries[start : start + _BATCH] for start in range(0, len(entries), _BATCH))


@contextmanager
def sweeping(engine: Engine, settings: Settings, stop: Event) -> Iterator[None]:
    """Sweep beside the block in a thread of its own, so that a slow store delays no job."""
    thread = Thread(target=_sweep, args=(engine, settings, stop), name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def _sweep(engine: Engine, settings: Settings, stop: Event) -> None:
    log = structlog.stdlib.get_logger("scheduler.sweep")
    sweeper: Sweeper | None = None
    while not stop.wait(settings.sweep_s):
        try:
            erase_gone_teams(engine, stop)
            if sweeper is None:
                store = open_store(settings.store_url, StoreOptions.from_settings(settings))
                sweeper = Sweeper(engine, store, settings)
            swept = sweeper.round()
        except (ThawError, DBAPIError) as error:
            log.error("the sweep was broken off, the next round goes on", error=str(error).splitlines()[0])
        except Exception:  # whatever it is: a sweep that ends leaves a store that only grows
            log.exception("the sweep failed, the next round tries again")
        else:
            if swept is not None:
                log.info("swept", **summary(swept))


def summary(swept: Swept) -> dict[str, int | bool]:
    """What a round did, for the log: files by verdict, and what went in all."""
    by_verdict = {str(verdict): swept.files[verdict] for verdict in Verdict}
    return {**by_verdict, "gone": swept.n_gone, "bytes": swept.bytes_gone, "whole": swept.is_whole}
