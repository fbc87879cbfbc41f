"""Events in their order: whoever follows a job, cut off wherever, sees each once and misses none."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_house import JOBS, ApiHouse, api_on
from api_server import ROOT, Server, served
from dispatch_rows import World
from sqlalchemy import Engine, select
from waiting import eventually

from shared.artifacts import open_store
from shared.artifacts.keys import artifact_key
from shared.db.engine import make_engine, transaction
from shared.db.history import lock_job, record
from shared.db.models import Attempt, Event, Job
from shared.domain.job import JobState
from shared.settings import Settings
from thaw.client import Thaw
from thaw.sse import messages


class Changed(Exception):
    """A transaction that was not to be."""


def write_events(engine: Engine, job_id: str, seed: int, *, transactions: int, pause_s: float = 0.002) -> int:
    """Append events in several transactions, of which some are rolled back; how many were committed."""
    draw, committed = random.Random(seed), 0
    for number in range(transactions):
        events = draw.randint(1, 3)
        try:
            with transaction(engine) as session:
                job = lock_job(session, job_id)
                for n in range(events):
                    record(session, job, "note", f"{seed}: {number}.{n}", actor="test")
                    session.flush()
                time.sleep(draw.random() * pause_s)
                if draw.random() < 0.25:
                    raise Changed
            committed += events
        except Changed:
            continue
        time.sleep(draw.random() * pause_s)
    return committed


def test_a_reader_never_sees_a_number_before_the_one_below_it(settings: Settings) -> None:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=10)
    job_id = World(engine).found().job()

    def numbers() -> list[int]:
        with transaction(engine) as session:
            return list(session.scalars(select(Event.seq).where(Event.job_id == job_id)))

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write_events, engine, job_id, seed, transactions=30) for seed in range(6)]
        looks, last = 0, 0
        while not all(writer.done() for writer in writers):
            seen = sorted(numbers())
            assert seen == list(range(1, len(seen) + 1))
            assert len(seen) >= last
            looks, last = looks + 1, len(seen)
        written = sum(writer.result() for writer in writers)
    assert looks > 20
    assert sorted(numbers()) == list(range(1, written + 2))  # and the one of its being queued
    engine.dispose()


class CutFollower:
    """Reads a stream in pieces of random length, each over a connection of its own."""

    def __init__(self, house: ApiHouse, address: str, job_id: str, seed: int) -> None:
        self.seen: list[int] = []
        self.connections = 0
        self._draw = random.Random(seed)
        self._url = f"{address}{JOBS}/{job_id}/events"
        self._key = house.client.headers["Authorization"]

    def run(self) -> list[int]:
        """Until the last event has come; the numbers of all that came, in the order in which they did."""
        is_over = False
        while not is_over:
            try:
                is_over = self._connect()
            except httpx.TransportError:
                time.sleep(0.05)
        return self.seen

    def _connect(self) -> bool:
        headers = {"Accept": "text/event-stream", "Authorization": self._key}
        if self.seen:
            headers["Last-Event-ID"] = str(self.seen[-1])
        with httpx.stream("GET", self._url, headers=headers, timeout=30) as answer:
            if answer.status_code != 200:
                return False
            self.connections += 1
            for message in messages(self._some_of(answer)):
                self.seen.append(int(message.id or 0))
                if json.loads(message.data)["data"].get("new") in ("succeeded", "cancelled"):
                    return True
        return False

    def _some_of(self, answer: httpx.Response) -> Iterator[bytes]:
        """The first few thousand bytes, which end in the middle of an event as likely as not."""
        left = self._draw.randint(1, 12_000)
        for chunk in answer.iter_raw():
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return


def test_whoever_is_cut_off_and_comes_back_misses_nothing_and_sees_nothing_twice(
    settings: Settings, tmp_path: Path
) -> None:
    with (
        api_on(settings) as house,
        served(settings, tmp_path / "log") as address,
        ThreadPoolExecutor(8) as pool,
    ):
        job_id = house.job(training_file=house.data_set("a", "b"))["id"]
        followers = [CutFollower(house, address, job_id, seed) for seed in range(3)]
        follows = [pool.submit(follower.run) for follower in followers]
        writes = [
            pool.submit(write_events, house.engine, job_id, seed, transactions=40, pause_s=0.02)
            for seed in range(3)
        ]
        written = sum(write.result() for write in writes) + 3
        house.move(job_id, JobState.CANCELLED)
        for follow in follows:
            assert follow.result(timeout=60) == list(range(1, written + 1))
        assert all(follower.connections > 3 for follower in followers)


@pytest.mark.slow
def test_the_server_is_killed_and_started_again_and_followers_notice_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    server = Server(settings, tmp_path / "log")
    server.start()
    server.wait()
    with api_on(settings) as house, ThreadPoolExecutor(12) as pool:
        job_id = house.job(training_file=house.data_set("a", "b"))["id"]
        house.add_artifact(job_id, "logs.txt", b"")
        follows: list[Future[Any]] = [
            pool.submit(CutFollower(house, server.address, job_id, seed).run) for seed in range(2)
        ]
        follows.append(pool.submit(_numbers_of_client, house, server.address, job_id))
        watch = _thaw(house, server.address, tmp_path, "watch", job_id, "--json")
        logs = _thaw(house, server.address, tmp_path, "logs", job_id, "-f")
        is_over: list[bool] = []
        written = pool.submit(_write_until, house, job_id, is_over)
        for end in (server.kill, server.stop, server.kill):
            _wait_for_more(house, job_id, 20)
            end()
            _wait_for_more(house, job_id, 5)
            server.start()
            server.wait()
        is_over.append(True)
        log = written.result(timeout=60)
        house.move(job_id, JobState.CANCELLED)
        expected = list(range(1, _n_events(house, job_id) + 1))

        for follow in follows:
            assert follow.result(timeout=90) == expected
        shown, errors = watch.communicate(timeout=90)
        assert [json.loads(line)["seq"] for line in shown.splitlines()] == expected, errors
        assert watch.returncode == 1
        assert logs.communicate(timeout=90)[0] == log
        assert logs.returncode == 0
    server.stop()


def _numbers_of_client(house: ApiHouse, address: str, job_id: str) -> list[int]:
    key = house.client.headers["Authorization"].removeprefix("Bearer ")
    with Thaw(address, key) as thaw:
        return [event.seq for event in thaw.jobs.events(job_id, patience_s=90)]


def _thaw(house: ApiHouse, address: str, home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    key = house.client.headers["Authorization"].removeprefix("Bearer ")
    told = {"THAW_URL": address, "THAW_API_KEY": key, "XDG_CONFIG_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-m", "thaw", *arguments],
        cwd=ROOT,
        env={**os.environ, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _write_until(house: ApiHouse, job_id: str, is_over: list[bool]) -> bytes:
    """Events, and a log that grows as a worker stores it, until told to end; the log."""
    with transaction(house.engine) as session:
        team_id = session.get_one(Job, job_id).team_id
        attempt = session.scalars(select(Attempt.id).where(Attempt.job_id == job_id)).one()
    store = open_store(house.settings.store_url)
    log, number = b"", 0
    while not is_over:
        write_events(house.engine, job_id, number, transactions=1, pause_s=0.05)
        log += f"line {number}\n".encode()
        store.put_bytes(artifact_key(team_id, job_id, attempt, "logs.txt"), log)
        number += 1
    return log


def _wait_for_more(house: ApiHouse, job_id: str, events: int) -> None:
    before = _n_events(house, job_id)
    eventually(lambda: _n_events(house, job_id) > before + events, within_s=60)


def _n_events(house: ApiHouse, job_id: str) -> int:
    with transaction(house.engine) as session:
        return session.get_one(Job, job_id).n_events
