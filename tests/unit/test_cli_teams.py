"""`thaw team` and `thaw key`: what the server is asked, and how its answer is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Script, refused, scripted, told
from test_cli_exits import closed_port, thaw

TEAM: dict[str, Any] = {
    "id": "team-1",
    "name": "vision",
    "status": "active",
    "created_at": 1,
    "deletion_asked_at": None,
    "unfinished_jobs": 0,
}
KEY: dict[str, Any] = {
    "id": "key-1",
    "name": "nightly",
    "team": "team-1",
    "team_name": "vision",
    "role": "member",
    "prefix": "thaw_abcdef",
    "status": "valid",
    "created_at": 1,
    "expires_at": 3601,
    "revoked_at": None,
    "last_used_at": None,
}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


def test_a_team_is_made_shown_and_removed(server: Script, tmp_path: Path) -> None:
    server.on("POST /v1/teams", told(TEAM))
    done = thaw(server.url, "team", "create", "vision", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "team-1\n", "")
    assert json.loads(server.requests[-1].body) == {"name": "vision"}

    server.on("GET /v1/teams/vision", told(TEAM))
    server.on("GET /v1/keys", told({"data": [KEY], "has_more": False}))
    shown = thaw(server.url, "team", "show", "vision", home=tmp_path).stdout
    assert ["key-1", "nightly", "member", "valid", "never"] in [line.split() for line in shown.splitlines()]
    assert "team=vision" in server.requests[-1].path

    server.on("DELETE /v1/teams/vision", refused(409, "team vision still owns 2 jobs"))
    done = thaw(server.url, "team", "rm", "vision", home=tmp_path)
    assert (done.returncode, done.stderr) == (3, "thaw: team vision still owns 2 jobs\n")


def test_a_team_goes_with_all_that_it_owns_when_its_name_is_given_again(
    server: Script, tmp_path: Path
) -> None:
    server.on("DELETE /v1/teams/team-1", told({"id": "team-1", "object": "team", "deleted": False}))
    done = thaw(server.url, "team", "rm", "team-1", "--confirm", "vision", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "team-1 is being deleted" in done.stderr
    assert server.requests[-1].path.endswith("?confirm=vision")

    going = TEAM | {"status": "deleting", "deletion_asked_at": 60, "unfinished_jobs": 3}
    server.on("GET /v1/teams/vision", told(going))
    server.on("GET /v1/keys", told({"data": [], "has_more": False}))
    shown = thaw(server.url, "team", "show", "vision", home=tmp_path).stdout
    assert "deleting, asked for at 1970-01-01 00:01:00 UTC, jobs that are not over: 3" in shown

    server.on("DELETE /v1/teams/vision", told({"id": "team-1", "object": "team", "deleted": True}))
    done = thaw(server.url, "team", "rm", "vision", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_list_is_read_to_its_last_page(server: Script, tmp_path: Path) -> None:
    second = TEAM | {"id": "team-2", "name": "audio"}
    server.on(
        "GET /v1/teams",
        told({"data": [TEAM], "has_more": True}),
        told({"data": [second], "has_more": False}),
    )
    done = thaw(server.url, "team", "list", "--json", home=tmp_path)
    assert [team["id"] for team in json.loads(done.stdout)] == ["team-1", "team-2"]
    assert "after=team-1" in server.requests[-1].path


def test_a_key_is_the_only_line_on_standard_output(server: Script, tmp_path: Path) -> None:
    server.on("POST /v1/keys", told(KEY | {"key": "thaw_abcdefgh"}))
    options = ("--role", "member", "--team", "vision", "--expires-in", "1h")
    done = thaw(server.url, "key", "create", "nightly", *options, home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "thaw_abcdefgh\n")
    assert "member of team vision, until 1970-01-01 01:00:01 UTC" in done.stderr
    assert "thaw_abcdefgh" not in done.stderr
    assert json.loads(server.requests[-1].body) == {
        "name": "nightly",
        "role": "member",
        "team": "vision",
        "expires_in_s": 3600,
    }


def test_keys_are_listed_and_revoked(server: Script, tmp_path: Path) -> None:
    server.on("GET /v1/keys", told({"data": [KEY], "has_more": False}))
    row = thaw(server.url, "key", "list", home=tmp_path).stdout.splitlines()[1].split()
    assert row[:6] == ["key-1", "nightly", "vision", "member", "thaw_abcdef", "valid"]
    server.on("POST /v1/keys/key-1/revoke", told(KEY | {"status": "revoked"}))
    done = thaw(server.url, "key", "revoke", "key-1", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "key-1 revoked\n")


def test_a_length_of_time_that_is_none_is_a_wrong_command_line(tmp_path: Path) -> None:
    for length in ("90", "1w", "-1d", ""):
        given = ("--role", "viewer", f"--expires-in={length}")
        done = thaw(closed_port(), "key", "create", "x", *given, home=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "as 90d" in done.stderr


def test_the_audit_log_is_told_in_lines(server: Script, tmp_path: Path) -> None:
    entry = {
        "id": "7",
        "at": 1,
        "team_name": "vision",
        "key_name": "nightly",
        "role": "member",
        "method": "POST",
        "route": "/v1/files",
        "target": "file-1",
        "status": 200,
        "client": "10.0.0.1",
    }
    server.on("GET /v1/audit", told({"data": [entry, entry | {"target": "file-0"}], "has_more": False}))
    done = thaw(server.url, "audit", "--key", "key-1", "--limit", "1", home=tmp_path)
    words = "1970-01-01 00:00:01 vision nightly member POST /v1/files file-1 200 10.0.0.1"
    assert [" ".join(line.split()) for line in done.stdout.splitlines()[1:]] == [words]
    assert "key=key-1" in server.requests[-1].path
