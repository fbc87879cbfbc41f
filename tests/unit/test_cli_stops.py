"""`thaw pause`, `resume`, `preempt` and `thaw node`: what the server is asked, and how its answer is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Script, refused, scripted, told
from test_cli_exits import thaw

JOB = {"id": "ftjob-1", "model": "resnet18", "status": "running", "phase": "stopping"}
PATH = "/v1/fine_tuning/jobs/ftjob-1"
NODE = {
    "id": "rack/1",
    "state": "draining",
    "accelerator": "NVIDIA L4",
    "memory_bytes": 24 * 2**30,
    "models": [],
    "slots": [
        {"index": 0, "state": "held", "unhealthy_reason": None, "job_id": "ftjob-1"},
        {"index": 1, "state": "free", "unhealthy_reason": "it does not answer", "job_id": None},
        {"index": 2, "state": "held", "unhealthy_reason": "XID 79", "job_id": "ftjob-2"},
    ],
    "last_seen_at": 1,
    "drained_at": 1,
}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


@pytest.mark.parametrize(
    ("command", "reason", "words"),
    [
        ("pause", "pause", "stopping, to be paused"),
        ("preempt", "preempt", "stopping, to hand its slots to others"),
        ("cancel", "cancel", "stopping, to be cancelled"),
        ("resume", "drain", "stopping, as its node is taken away"),
    ],
)
def test_a_stop_is_told_in_plain_words(
    server: Script, tmp_path: Path, command: str, reason: str, words: str
) -> None:
    server.on(f"POST {PATH}/{command}", told({**JOB, "stop_reason": reason}))
    done = thaw(server.url, command, "ftjob-1", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ftjob-1 {words}\n", "")
    assert server.requests[-1].body == b""
    done = thaw(server.url, command, "ftjob-1", "--json", home=tmp_path)
    assert json.loads(done.stdout)["stop_reason"] == reason


def test_resume_sends_what_is_set_and_an_extraction_goes_to_its_own_path(
    server: Script, tmp_path: Path
) -> None:
    server.on(f"POST {PATH}/resume", told({**JOB, "phase": "queued"}))
    changes = ("hyperparameters.n_epochs=5", "hyperparameters.learning_rate=3e-3", "max_duration_s=null")
    options = [word for change in changes for word in ("--set", change)]
    done = thaw(server.url, "resume", "ftjob-1", *options, home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "ftjob-1 queued\n")
    assert json.loads(server.requests[-1].body) == {
        "hyperparameters": {"n_epochs": 5, "learning_rate": 0.003},
        "max_duration_s": None,
    }
    server.on("POST /v1/feature_extraction/jobs/fxjob-1/resume", told({**JOB, "id": "fxjob-1"}))
    assert thaw(server.url, "resume", "fxjob-1", home=tmp_path).returncode == 0


def test_what_the_server_refuses_and_what_cannot_be_meant_have_their_own_exits(
    server: Script, tmp_path: Path
) -> None:
    server.on(f"POST {PATH}/resume", refused(409, "it is leaving its slots"))
    done = thaw(server.url, "resume", "ftjob-1", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "thaw: it is leaving its slots\n")
    done = thaw(server.url, "resume", "ftjob-1", "--set", "n_epochs", home=tmp_path)
    assert done.returncode == 2
    assert "path=value" in done.stderr


def test_show_says_that_a_job_is_paused_and_what_was_changed(server: Script, tmp_path: Path) -> None:
    change = {"field": "hyperparameters.n_epochs", "old": 3, "new": 5, "time": 1, "actor": "api:key-1"}
    job: dict[str, Any] = {
        **JOB,
        "status": "paused",
        "phase": "paused",
        "changes": [change],
        "freeze_plan": {"phases": []},
        "created_at": 0,
        "timings": {},
    }
    server.on(f"GET {PATH}", told(job))
    shown = thaw(server.url, "show", "ftjob-1", home=tmp_path).stdout
    assert "thaw resume ftjob-1" in shown
    assert "hyperparameters.n_epochs 3 -> 5, 1970-01-01" in shown


def test_show_names_every_node_that_a_running_job_holds_slots_of(server: Script, tmp_path: Path) -> None:
    over = {"outcome": "lost", "nodes": [{"node": "rack-9", "slots": [0]}]}
    shares = [{"node": "rack-2", "slots": [0, 1]}, {"node": "rack-1", "slots": [2, 3]}]
    job: dict[str, Any] = {
        **JOB,
        "attempts": [over, {"outcome": None, "nodes": shares}],
        "freeze_plan": {"phases": []},
        "created_at": 0,
        "timings": {},
    }
    server.on(f"GET {PATH}", told(job))
    shown = thaw(server.url, "show", "ftjob-1", home=tmp_path).stdout
    where = [line for line in shown.splitlines() if line.startswith("runs on")]
    assert where == ["runs on        rack-2, slots 0, 1", "runs on        rack-1, slots 2, 3"]


def test_a_node_is_shown_drained_and_undrained(server: Script, tmp_path: Path) -> None:
    server.on("GET /v1/nodes/rack%2F1", told(NODE))
    shown = thaw(server.url, "node", "show", "rack/1", home=tmp_path).stdout
    assert "draining, drained since 1970-01-01 00:00:01 UTC" in shown
    assert ["0", "held", "ftjob-1"] in [line.split() for line in shown.splitlines()]
    assert ["1", "unhealthy"] in [line.split() for line in shown.splitlines()]
    assert "the GPU of slot 1 is given no new job: it does not answer" in shown
    assert "24.0 GiB on each device" in shown
    server.on("GET /v1/nodes", told({"object": "list", "data": [NODE], "has_more": False}))
    listed = thaw(server.url, "node", "list", home=tmp_path).stdout
    assert "24.0 GiB" in listed
    assert "1 held, 1 held and unhealthy, 1 unhealthy" in listed
    server.on("POST /v1/nodes/rack%2F1/drain", told(NODE))
    done = thaw(server.url, "node", "drain", "rack/1", home=tmp_path)
    assert (done.returncode, done.stdout.split(",")[0]) == (0, "rack/1 draining")
    server.on("POST /v1/nodes/rack%2F1/undrain", told({**NODE, "state": "suspect", "drained_at": None}))
    done = thaw(server.url, "node", "undrain", "rack/1", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "rack/1 suspect\n")
    assert "from its next heartbeat on" in done.stderr
    server.on("POST /v1/nodes/rack%2F1/drain", refused(403, "this is for keys of role 'admin'"))
    assert thaw(server.url, "node", "drain", "rack/1", "--json", home=tmp_path).returncode == 3
