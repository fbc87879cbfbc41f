"""Schedulers that are killed with -9 and stopped again and again, each followed by another; by a seed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from api_server import ROOT
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from shared.db.engine import transaction

_STOPPED_S = (0.1, 1.0)
_AT_WORK = "select application_name from pg_stat_activity where application_name like 'scheduler-%'"


@dataclass
class _Life:
    """One process. `goes_on_at`: it is stopped until then."""

    name: str
    process: subprocess.Popen[bytes]
    goes_on_at: float | None = None

    def look(self) -> None:
        if self.goes_on_at is not None and time.monotonic() >= self.goes_on_at:
            self.process.send_signal(signal.SIGCONT)
            self.goes_on_at = None


class ShortLives:
    """Some schedulers beside each other, those at work first to be hit."""

    def __init__(
        self, engine: Engine, env: Mapping[str, str], log: Path, *, seats: int, chance: random.Random
    ) -> None:
        self._engine, self._env, self._log = engine, env, log
        self._seats, self._chance = seats, chance
        self._lives: list[_Life] = []
        self._n_begun = 0

    def look(self) -> None:
        """Have others follow those that were killed; none may end by itself."""
        while len(self._lives) < self._seats:
            self._lives.append(self._begin())
        for life in self._lives:
            assert life.process.poll() is None, f"{life.name} ended by itself: {self.log()[-2000:]}"
            life.look()

    def kill_one(self) -> None:
        life = self._pick()
        self._lives.remove(life)
        life.process.kill()
        life.process.wait()

    def stop_one(self) -> None:
        """For up to a second; what it holds in the database it holds for so long."""
        life = self._pick()
        life.process.send_signal(signal.SIGSTOP)
        life.goes_on_at = time.monotonic() + self._chance.uniform(*_STOPPED_S)

    def log(self) -> str:
        """What all of them have written."""
        return self._log.read_text() if self._log.exists() else ""

    def n_missed_stores(self) -> int:
        """How often one of them could not sweep."""
        return self.log().count("the sweep was broken off")

    def end(self) -> None:
        for life in self._lives:
            life.process.kill()
            life.process.wait()

    def _begin(self) -> _Life:
        name = f"scheduler-{self._n_begun}"
        self._n_begun += 1
        env = {**os.environ, "PYTHONPATH": str(ROOT), **self._env, "PGAPPNAME": name}
        command = [sys.executable, "-m", "scheduler"]
        with self._log.open("ab") as log:
            return _Life(name, subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log))

    def _pick(self) -> _Life:
        at_work: set[str] = set()
        with suppress(DBAPIError), transaction(self._engine) as session:
            at_work = set(session.scalars(text(_AT_WORK)))
        return self._chance.choice([life for life in self._lives if life.name in at_work] or self._lives)


@contextmanager
def short_lives(
    engine: Engine, env: Mapping[str, str], log: Path, *, seats: int, chance: random.Random
) -> Iterator[ShortLives]:
    """None is left at the end."""
    lives = ShortLives(engine, env, log, seats=seats, chance=chance)
    try:
        yield lives
    finally:
        lives.end()
