"""`thaw team quota`: what is changed of a team's terms, and how they are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Script, refused, scripted, told
from test_cli_exits import thaw

PATH = "/v1/teams/vision/quota"
NOTHING = {
    "max_queued_jobs": None,
    "max_storage_bytes": None,
    "max_duration_s": None,
    "max_devices": None,
    "accelerators": None,
    "keep_jobs_days": None,
    "keep_files_days": None,
}
HELD = {"held": 5, "borrowed": 1, "held_on_average": 2.25}
CPU = {"accelerator": "cpu", "nominal_quota": 4, "borrowing_limit": None, "lending_limit": 2}
TERMS: dict[str, Any] = {
    "object": "team.quota",
    "team": "vision",
    "team_id": "team-1",
    "weight": 1.5,
    "quotas": [{**CPU, **HELD}, {**dict.fromkeys(CPU), "accelerator": "H100", **HELD}],
    "limits": {**NOTHING, "max_devices": 8},
    "waiting_jobs": 3,
    "stored_bytes": 2_500_000,
}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        script.on(f"GET {PATH}", told(TERMS))
        script.on(f"PUT {PATH}", told(TERMS))
        yield script


def sent(server: Script) -> Any:
    return json.loads(server.requests[-1].body)


def test_terms_are_told_with_what_the_team_has(server: Script, tmp_path: Path) -> None:
    done = thaw(server.url, "team", "quota", "show", "vision", home=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["vision:", "weight", "1.5"]
    assert ["cpu", "4", "what", "is", "idle", "2", "5", "1", "2.2"] in lines
    assert ["H100", "no", "quota", "what", "is", "idle", "5", "1", "2.2"] in lines
    assert ["devices", "of", "a", "job", "8"] in lines
    assert ["jobs", "that", "wait", "no", "limit", "3"] in lines


def test_only_what_is_named_is_changed(server: Script, tmp_path: Path) -> None:
    options = (
        "--nominal",
        "NVIDIA A100=16",
        "--borrow",
        "NVIDIA A100=8",
        "--lend",
        "cpu=none",
        "--weight",
        "2",
    )
    limits = (
        "--limit",
        "max_queued_jobs=9",
        "--limit",
        "max_devices=none",
        "--limit",
        "accelerators=cpu, NVIDIA A100",
    )
    done = thaw(server.url, "team", "quota", "set", "vision", *options, *limits, home=tmp_path)
    assert done.returncode == 0, done.stderr
    a100 = {"accelerator": "NVIDIA A100", "nominal_quota": 16, "borrowing_limit": 8, "lending_limit": None}
    assert sent(server) == {
        "weight": 2.0,
        "quotas": [{**CPU, "lending_limit": None}, a100],
        "limits": {**NOTHING, "max_queued_jobs": 9, "accelerators": ["cpu", "NVIDIA A100"]},
    }


def test_a_quota_is_taken_away_with_none(server: Script, tmp_path: Path) -> None:
    assert (
        thaw(server.url, "team", "quota", "set", "vision", "--nominal", "cpu=none", home=tmp_path).returncode
        == 0
    )
    assert sent(server) == {"weight": 1.5, "quotas": [], "limits": {**NOTHING, "max_devices": 8}}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--nominal", "cpu"), "'cpu' is not TYPE=SLOTS"),
        (("--nominal", "cpu=many"), "ends in no whole number"),
        (("--borrow", "H100=4"), "has: cpu. Give --nominal H100=SLOTS too"),
        (("--limit", "max_jobs=4"), "one of max_queued_jobs"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_sent(
    server: Script, tmp_path: Path, options: tuple[str, str], words: str
) -> None:
    done = thaw(server.url, "team", "quota", "set", "vision", *options, home=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert all(request.method == "GET" for request in server.requests)


def test_the_servers_refusal_is_told(server: Script, tmp_path: Path) -> None:
    server.on(f"PUT {PATH}", refused(403, "this is for keys of role 'admin'"))
    done = thaw(server.url, "team", "quota", "set", "vision", "--weight", "2", home=tmp_path)
    assert (done.returncode, done.stderr) == (3, "thaw: this is for keys of role 'admin'\n")
