"""`thaw usage`: what the server is asked, and how its answer is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from scripted_server import Script, refused, scripted, told
from test_cli_exits import thaw

ROW = {"team": None, "person": None, "model": None, "day": None, "n_jobs": 2, "n_attempts": 3}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


def answer(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"object": "usage", "start": 60, "end": 86400, "group_by": [], "data": [ROW | row for row in rows]}


def test_usage_is_a_table_with_a_sum_for_each_accelerator_of_several_lines(
    server: Script, tmp_path: Path
) -> None:
    ana, bo = {"id": "key-1", "name": "ana"}, {"id": "key-2", "name": "bo"}
    rows = (
        {"day": "2026-03-01", "person": ana, "accelerator": "cpu", "slot_hours": 1000.5},
        {"day": "2026-03-01", "person": bo, "accelerator": "cpu", "slot_hours": 0.25},
        {"day": "2026-03-02", "person": bo, "accelerator": "H100", "slot_hours": 3.0},
    )
    server.on("GET /v1/usage", told(answer(*({**row, "wasted_slot_hours": 0.125} for row in rows))))
    options = ("--by", "day", "--by", "person", "--start", "2026-03-01", "--end", "2026-03-02T12:00:00")
    done = thaw(server.url, "usage", *options, "--team", "vision", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["2026-03-01", "ana", "cpu", "1,000.50", "0.12", "2", "3"],
        ["2026-03-01", "bo", "cpu", "0.25", "0.12", "2", "3"],
        ["2026-03-02", "bo", "H100", "3.00", "0.12", "2", "3"],
        ["all", "cpu", "1,000.75", "0.25"],
    ]
    assert done.stderr == "from 1970-01-01 00:01:00 to 1970-01-02 00:00:00 UTC\n"
    assert parse_qs(urlsplit(server.requests[-1].path).query) == {
        "group_by": ["day", "person"],
        "start": ["1772323200"],
        "end": ["1772452800"],
        "team": ["vision"],
    }


def test_usage_as_json_is_the_servers_answer_and_a_refusal_has_its_exit(
    server: Script, tmp_path: Path
) -> None:
    raw = answer({"accelerator": "cpu", "slot_hours": 1.0, "wasted_slot_hours": 0.0})
    server.on("GET /v1/usage", told(raw))
    assert json.loads(thaw(server.url, "usage", "--json", home=tmp_path).stdout) == raw
    assert urlsplit(server.requests[-1].path).query == ""
    assert thaw(server.url, "usage", "--by", "week", home=tmp_path).returncode == 2
    server.on("GET /v1/usage", refused(404, "no team 'x'", "team"))
    done = thaw(server.url, "usage", "--team", "x", home=tmp_path)
    assert (done.returncode, done.stderr) == (3, "thaw: team: no team 'x'\n")
