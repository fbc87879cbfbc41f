"""`thaw queue`: place, start and reason of each job that waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Script, scripted, told
from test_cli_exits import JOB, thaw

from thaw.cli.queue import start_in_words

SLOTS = {"accelerator": "cpu", "n_nodes": 1, "free": 0, "held": 6, "dirty": 2, "away": 0}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


def answer(*jobs: dict[str, Any]) -> dict[str, Any]:
    waiting = {**JOB, "status": "queued", "phase": "queued", "created_at": 0}
    data = [waiting | job for job in jobs]
    return {"object": "list", "data": data, "has_more": False, "n_waiting": 7, "slots": [SLOTS]}


def test_the_queue_says_what_each_job_waits_for_and_when_it_may_start(server: Script, tmp_path: Path) -> None:
    start = {"earliest": 60, "likely": 120, "latest": 86400}
    job = {
        "queue_position": 3,
        "priority": 5,
        "wait_reason": "2 of 4 slots are free",
        "estimated_start": start,
    }
    server.on("GET /v1/queue", told(answer(job)))
    done = thaw(server.url, "queue", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:4] == ["3", "ftjob-1", "resnet18", "5"]
    assert "about 01-01 00:02 (not before 01-01 00:01, by 01-02 00:00)" in done.stdout
    assert "2 of 4 slots are free" in done.stdout
    assert done.stderr == "7 wait in all\ncpu: 6 held, 2 dirty\n"
    listed = json.loads(thaw(server.url, "queue", "--json", home=tmp_path).stdout)
    assert [one["queue_position"] for one in listed] == [3]


def test_what_is_not_known_of_a_start_is_said_to_be_unknown() -> None:
    assert start_in_words(None) == "not known"
    unknown = {"earliest": 60, "likely": None, "latest": None}
    assert start_in_words(unknown) == "not known (not before 01-01 00:01)"
    assert start_in_words({**unknown, "latest": 120}) == "not known (not before 01-01 00:01, by 01-01 00:02)"
