"""Events without gaps, downloads that are whole or not there, uploads that are sent once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from scripted_server import Answer, Script, refused, scripted, told

from thaw.client import Thaw
from thaw.errors import DamagedDownload, ServerRefused, ServerUnreachable, UsageError
from thaw.packing import packed
from thaw.shapes import Artifact

JOB = "/v1/fine_tuning/jobs/ftjob-1"
OVER = {"id": "ftjob-1", "model": "m", "status": "succeeded", "phase": "succeeded"}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


@pytest.fixture
def thaw(server: Script) -> Iterator[Thaw]:
    with Thaw(server.url, "key") as client:
        yield client


def stream(*numbers: int, cut: bool = False) -> Answer:
    event = {"type": "note", "level": "info", "message": "line\u2028separator", "created_at": 1, "data": {}}
    text = "".join(f"id: {n}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for n in numbers)
    return Answer(f": keep-alive\r\n\r\n{text}".encode(), type="text/event-stream", cut=cut)


def test_each_event_comes_once_though_the_stream_breaks_repeats_and_leaves_out(
    server: Script, thaw: Thaw
) -> None:
    parts = [stream(1, 2, cut=True), refused(503, "starting"), stream(2, 3, 5), stream(4, 5, 6), stream()]
    server.on(f"GET {JOB}/events", *parts)
    server.on(f"GET {JOB}", told(OVER))
    events = list(thaw.jobs.events("ftjob-1"))
    assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6]
    assert {event.message for event in events} == {"line\u2028separator"}
    asked = [r.headers["Last-Event-ID"] for r in server.requests if r.path.endswith("/events")]
    assert asked == ["0", "2", "2", "3", "6"]


def test_a_stream_that_ends_before_the_last_event_is_asked_for_the_rest(server: Script, thaw: Thaw) -> None:
    """A server that stops, or a proxy, ends a stream as cleanly as a job that is over does."""
    server.on(f"GET {JOB}/events", stream(1, 2), stream(), stream(3), stream())
    server.on(f"GET {JOB}", told({**OVER, "n_events": 3}))
    assert [event.seq for event in thaw.jobs.events("ftjob-1")] == [1, 2, 3]


def test_a_log_is_followed_over_a_lost_server_and_into_the_next_try(server: Script, thaw: Thaw) -> None:
    first, second = {"X-Attempt": "1"}, {"X-Attempt": "2"}
    running = told({**OVER, "status": "running"})
    server.on(f"GET {JOB}", running, refused(503, "starting"), running, running, told(OVER))
    server.on(
        f"GET {JOB}/logs",
        Answer(b"one\ntw", type="text/plain", cut=True, headers=first),
        Answer(b"o\n", type="text/plain", headers=first),
        Answer(b"", type="text/plain", headers=second),
        Answer(b"again\n", type="text/plain", headers=second),
        Answer(b"done\n", type="text/plain", headers=second),
    )
    assert b"".join(thaw.jobs.follow_logs("ftjob-1", look_every_s=0.01)) == b"one\ntwo\nagain\ndone\n"
    asked = [r.path.partition("=")[2] for r in server.requests if "/logs" in r.path]
    assert asked == ["0", "6", "8", "0", "6"]


def test_a_log_whose_server_stays_away_ends_the_following(server: Script, thaw: Thaw) -> None:
    server.on(f"GET {JOB}", refused(503, "starting"))
    with pytest.raises(ServerRefused, match="starting"):
        list(thaw.jobs.follow_logs("ftjob-1", look_every_s=0.01, patience_s=0.05))


def test_a_job_that_may_not_be_seen_ends_the_following(server: Script, thaw: Thaw) -> None:
    server.on(f"GET {JOB}/events", refused(404, "no job ftjob-1"))
    with pytest.raises(ServerRefused, match="no job"):
        next(thaw.jobs.events("ftjob-1"))


def test_a_server_that_stays_away_ends_the_following() -> None:
    with scripted() as script:
        url = script.url
    with Thaw(url, "key") as thaw, pytest.raises(ServerUnreachable):
        next(thaw.jobs.events("ftjob-1", patience_s=0.1))


def test_a_download_is_checked_before_it_is_there(server: Script, thaw: Thaw, tmp_path: Path) -> None:
    artifact = Artifact("checkpoints/a b.bin", 4, hashlib.sha256(b"good").hexdigest())
    server.on(
        f"GET {JOB}/artifacts/checkpoints/a%20b.bin",
        Answer(b"evil"),
        Answer(b"goo", cut=True),
        Answer(b"good"),
    )
    with pytest.raises(DamagedDownload, match="sha256"):
        thaw.jobs.download("ftjob-1", artifact, tmp_path)
    with pytest.raises(ServerUnreachable):
        thaw.jobs.download("ftjob-1", artifact, tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    path = thaw.jobs.download("ftjob-1", artifact, tmp_path)
    assert path.read_bytes() == b"good"
    n_requests = len(server.requests)
    assert thaw.jobs.download("ftjob-1", artifact, tmp_path) == path
    assert len(server.requests) == n_requests


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "."])
def test_a_name_that_leads_out_of_the_folder_is_not_written(thaw: Thaw, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="leads out"):
        thaw.jobs.download("ftjob-1", Artifact(name, 1, "0"), tmp_path / "to")
    assert not list(tmp_path.iterdir())


def write_scans(folder: Path, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def test_a_folder_is_the_same_zip_whenever_and_in_whatever_order_it_was_written(tmp_path: Path) -> None:
    names = ["cat/1.png", "cat/2.png", "dog/1.png"]
    with packed(write_scans(tmp_path / "a" / "scans", names)) as first:
        assert first.name == "scans.zip"
    later = write_scans(tmp_path / "b" / "scans", [*names[::-1], "cat/.DS_Store"])
    for path in later.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    with packed(later) as second:
        assert second.sha256 == first.sha256
        assert second.left_out == ("cat/.DS_Store",)
    assert not second.path.exists()


@pytest.mark.parametrize(
    ("names", "told"), [([], "holds no files"), (["1.png"], "outside of any class folder")]
)
def test_a_folder_without_classes_is_refused(tmp_path: Path, names: list[str], told: str) -> None:
    (tmp_path / "scans").mkdir()
    with pytest.raises(UsageError, match=told), packed(write_scans(tmp_path / "scans", names)):
        pass


@pytest.mark.parametrize("told", ["labels.csv", "classes.txt"])
def test_a_file_that_tells_the_classes_lies_beside_the_pictures(tmp_path: Path, told: str) -> None:
    with packed(write_scans(tmp_path / "scans", ["1.png", told])) as package:
        assert ZipFile(package.path).namelist() == ["1.png", told]


def test_bytes_that_are_there_are_not_sent_again(server: Script, thaw: Thaw, tmp_path: Path) -> None:
    (tmp_path / "scans.zip").write_bytes(b"x" * 200_000)
    digest = hashlib.sha256(b"x" * 200_000).hexdigest()
    there = {"id": "file-1", "filename": "scans.zip", "bytes": 200_000, "sha256": digest}
    nothing, all_files = ({"object": "list", "data": data, "has_more": False} for data in ([], [there]))
    server.on("GET /v1/files", told(nothing), told(all_files))
    server.on("POST /v1/files", told(there))
    reported: list[tuple[int, int]] = []
    sent = thaw.files.upload(tmp_path / "scans.zip", lambda done, total: reported.append((done, total)))
    assert (sent.id, sent.reused) == ("file-1", False)
    assert reported[-1] == (200_000, 200_000)
    assert len(reported) > 2
    assert b'name="purpose"\r\n\r\nfine-tune' in server.requests[-1].body
    again = thaw.files.upload(tmp_path / "scans.zip")
    assert (again.id, again.reused) == ("file-1", True)
    assert [request.method for request in server.requests] == ["GET", "POST", "GET"]
