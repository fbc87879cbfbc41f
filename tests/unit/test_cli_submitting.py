"""`thaw submit` on a bad line: the answer is lost, the server starts again, and still there is one job."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from scripted_server import Answer, Script, refused, scripted, told
from test_cli_exits import JOB, closed_port, thaw

from thaw.client import Thaw
from thaw.errors import ServerRefused, ServerUnreachable

JOBS = "POST /v1/fine_tuning/jobs"
MADE = told({**JOB, "status": "queued"})
SPEC = {"model": "resnet18", "training_file": "file-1"}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


@contextmanager
def client(url: str) -> Iterator[Thaw]:
    with Thaw(url, "thaw_secret") as thaw:
        yield thaw


def keys(server: Script) -> list[str | None]:
    return [request.headers.get("Idempotency-Key") for request in server.requests]


def test_a_lost_answer_is_asked_for_again_under_the_same_key(server: Script) -> None:
    busy = refused(503, "starting")
    busy.headers["Retry-After"] = "1"
    server.on(JOBS, Answer(b'{"id": "ftjob', cut=True), busy, MADE)
    with client(server.url) as thaw:
        assert thaw.jobs.create(SPEC).id == "ftjob-1"
        first = keys(server)
        assert len(first) == 3
        assert first[0]
        assert len(set(first)) == 1
        thaw.jobs.create(SPEC)
    assert keys(server)[3] != first[0]


def test_a_refusal_is_final_and_asked_once(server: Script) -> None:
    server.on(JOBS, refused(422, "no", "model"))
    with client(server.url) as thaw, pytest.raises(ServerRefused, match="no"):
        thaw.jobs.create(SPEC)
    assert len(server.requests) == 1


def test_a_server_that_was_never_reached_is_told_at_once() -> None:
    with client(closed_port()) as thaw, pytest.raises(ServerUnreachable) as error:
        thaw.jobs.create(SPEC)
    assert not error.value.may_have_acted


def test_patience_ends(server: Script) -> None:
    server.on(JOBS, refused(503, "starting"))
    with client(server.url) as thaw, pytest.raises(ServerRefused, match="starting"):
        thaw.jobs.create(SPEC, patience_s=0.0)


def test_a_server_that_is_gone_after_the_request_may_have_acted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def take_one() -> None:
            taken, _ = listening.accept()
            taken.recv(65536)
            listening.close()
            taken.close()

        thread = Thread(target=take_one)
        thread.start()
        with client(url) as thaw_client, pytest.raises(ServerUnreachable, match="Key mine it can") as error:
            thaw_client.jobs.create(SPEC, idempotency_key="mine", patience_s=0.6)
        thread.join()
    assert error.value.may_have_acted


def test_the_key_of_the_command_line_is_sent(server: Script, tmp_path: Path) -> None:
    job_file = tmp_path / "job.yaml"
    job_file.write_text("model: resnet18\ntraining_file: file-1\n")
    server.on(JOBS, MADE)
    server.on("POST /v1/feature_extraction/jobs", MADE)
    for command in ("submit", "extract"):
        done = thaw(server.url, command, str(job_file), "--idempotency-key", "mine", home=tmp_path)
        assert (done.returncode, done.stdout) == (0, "ftjob-1\n"), done.stderr
    assert keys(server) == ["mine", "mine"]
