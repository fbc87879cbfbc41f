"""`thaw download --full`: the model is not fetched, its base is, once; and another base is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import pytest
from results_of_jobs import Result, a_result, header_of
from scripted_server import Answer, Script, refused, scripted, told
from test_cli_exits import JOB, thaw

from thaw.bases import Bases
from thaw.client import Thaw
from thaw.delta import Base
from thaw.errors import DamagedDownload, ServerUnreachable, UsageError
from thaw.published_weights import fetch_published
from thaw.rebuilding import rebuild

JOBS = "/v1/fine_tuning/jobs"
UPLOADED = {"kind": "file", "file_id": "file-base"}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


def offer(server: Script, job_id: str, **files: bytes) -> None:
    """The files of a job's result, listed and given out."""
    listed = []
    for name, content in files.items():
        listed.append({"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        server.on(f"GET {JOBS}/{job_id}/artifacts/{name}", Answer(content, type="application/octet-stream"))
    server.on(f"GET {JOBS}/{job_id}/artifacts", told({"data": listed, "has_more": False}))


def offer_all(server: Script, *results: Result) -> None:
    for result in results:
        offer(server, result.job_id, **result.files)
    offer(server, "ftjob-base", **{"model.safetensors": results[0].base})


def full(server: Script, home: Path, job_id: str = "ftjob-1", *options: str) -> CompletedProcess[str]:
    arguments = ("download", job_id, "--full", "--to", str(home / job_id), *options)
    return thaw(server.url, *arguments, home=home, THAW_CACHE=str(home / "cache"))


def asked(server: Script) -> list[str]:
    """The files that were fetched."""
    paths = (request.path for request in server.requests)
    return [path.removeprefix(f"{JOBS}/") for path in paths if "/artifacts/" in path or "/content" in path]


def test_two_jobs_of_one_base_fetch_it_once_and_neither_fetches_its_model(
    server: Script, tmp_path: Path
) -> None:
    first, second = a_result("ftjob-1"), a_result("ftjob-2", trained=0.25)
    offer_all(server, first, second)

    for result in (first, second):
        done = full(server, tmp_path, result.job_id)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / result.job_id}\n"
        assert (tmp_path / result.job_id / "model.safetensors").read_bytes() == result.model
        assert "(212 B): rebuilt bit for bit" in done.stderr
    assert "the model of ftjob-base, here already" in done.stderr
    assert done.stderr.endswith("rebuilt bit for bit, 212 B not fetched\n")
    assert asked(server) == [
        "ftjob-1/artifacts/model.json",
        "ftjob-1/artifacts/trainable.safetensors",
        "ftjob-base/artifacts/model.safetensors",
        "ftjob-2/artifacts/model.json",
        "ftjob-2/artifacts/trainable.safetensors",
    ]

    kept = next((tmp_path / "cache" / "bases").iterdir())
    kept.write_bytes(b"damaged")
    assert full(server, tmp_path, "ftjob-2").returncode == 0
    assert len(asked(server)) == 5, "a model that is there takes no base"
    (tmp_path / "ftjob-2" / "model.safetensors").write_bytes(b"damaged")
    assert full(server, tmp_path, "ftjob-2").returncode == 0
    assert asked(server)[5:] == ["ftjob-base/artifacts/model.safetensors"]
    assert kept.read_bytes() == first.base


def test_a_base_at_hand_is_used_and_another_is_refused_by_its_hash(server: Script, tmp_path: Path) -> None:
    result = a_result()
    offer(server, "ftjob-1", **result.files)
    own, wrong = tmp_path / "own", tmp_path / "wrong"
    own.write_bytes(result.base)
    wrong.write_bytes(result.base[:-1] + b"x")

    no = full(server, tmp_path, "ftjob-1", "--base", str(wrong))
    assert (no.returncode, no.stdout, no.stderr.count("\n")) == (2, "", 3), no.stderr
    for content in (wrong.read_bytes(), result.base):
        assert hashlib.sha256(content).hexdigest() in no.stderr
    assert not (tmp_path / "ftjob-1" / "model.safetensors").exists()

    assert full(server, tmp_path, "ftjob-1", "--base", str(own)).returncode == 0
    assert (tmp_path / "ftjob-1" / "model.safetensors").read_bytes() == result.model
    assert not (tmp_path / "cache").exists()
    alone = thaw(server.url, "download", "ftjob-1", "--base", str(own), home=tmp_path)
    assert (alone.returncode, alone.stderr.count("\n")) == (2, 1)
    assert "--full" in alone.stderr


def test_an_uploaded_base_is_fetched_and_one_that_is_gone_is_told_with_the_way_out(
    server: Script, tmp_path: Path
) -> None:
    result = a_result(weights=UPLOADED)
    offer(server, "ftjob-1", **result.files)
    file = {"id": "file-base", "filename": "w.safetensors", "bytes": len(result.base)}
    server.on("GET /v1/files/file-base", refused(404, "no file file-base"))
    gone = full(server, tmp_path)
    assert (gone.returncode, gone.stdout) == (3, "")
    assert "the uploaded file file-base, from which the job began, is gone" in gone.stderr
    assert "--base" in gone.stderr

    server.on("GET /v1/files/file-base", told({**file, "sha256": hashlib.sha256(result.base).hexdigest()}))
    server.on("GET /v1/files/file-base/content", Answer(b"damaged"), Answer(result.base))
    damaged = full(server, tmp_path)
    assert (damaged.returncode, "sha256" in damaged.stderr) == (4, True)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert full(server, tmp_path).returncode == 0
    assert (tmp_path / "ftjob-1" / "model.safetensors").read_bytes() == result.model


def test_a_result_that_names_no_base_and_a_job_without_a_model_are_told_as_such(
    server: Script, tmp_path: Path
) -> None:
    files = dict(a_result().files)
    card = json.loads(files["model.json"])
    del card["base"], card["trainable"]
    offer(server, "ftjob-1", **{**files, "model.json": json.dumps(card).encode()})
    old = full(server, tmp_path)
    assert old.returncode == 2
    assert "names no base" in old.stderr
    offer(server, "ftjob-2", **{"logs.txt": b"failed"})
    server.on(f"GET {JOBS}/ftjob-2", told({**JOB, "id": "ftjob-2"}))
    failed = full(server, tmp_path, "ftjob-2")
    assert failed.returncode == 2
    assert "only a job that succeeded has a model" in failed.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state_sha256": "0" * 64}, "0000 is wanted"),
        ({"sha256": "../evil"}, "is no SHA-256"),
        ({"format": None}, "of seed 0"),
    ],
)
def test_a_card_that_is_wrong_of_its_base_makes_no_model(
    tmp_path: Path, change: dict[str, str | None], words: str
) -> None:
    weights = {"kind": "none"} if "format" in change else None
    result = a_result(weights=weights, **change)
    folder = result.write(tmp_path / "job")
    (tmp_path / "base").write_bytes(result.base)
    with pytest.raises(UsageError, match=words):
        rebuild(folder, tmp_path / "base")
    assert not (folder / "model.safetensors").exists()


def test_a_model_that_does_not_come_out_bit_for_bit_is_not_kept(tmp_path: Path) -> None:
    header = header_of(a_result().model).replace(b'"pt"', b'"np"')
    folder = a_result(header=header).write(tmp_path / "job")
    (tmp_path / "base").write_bytes(a_result().base)
    with pytest.raises(UsageError, match="comes out with SHA-256"):
        rebuild(folder, tmp_path / "base")
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "trainable.safetensors"]


@pytest.mark.parametrize("name", ["model.json", "trainable.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff" * 20, b"\2\0\0\0\0\0\0\0[]"])
def test_a_damaged_file_is_told_and_no_crash(tmp_path: Path, name: str, content: bytes) -> None:
    folder = a_result().write(tmp_path / "job")
    (folder / name).write_bytes(content)
    if name == "trainable.safetensors":
        card = json.loads((folder / "model.json").read_text())
        card["trainable"]["sha256"] = hashlib.sha256(content).hexdigest()
        (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(UsageError):
        rebuild(folder, tmp_path / "base")


# -- torchvision's host, which the scripted server stands in for

WEIGHTS = {"kind": "published", "name": "X.V1", "url": "https://download.pytorch.org/x.pth"}
PUBLISHED = {**WEIGHTS, "file_name": "x.pth", "sha256": hashlib.sha256(b"good").hexdigest()[:8]}
GOOD = hashlib.sha256(b"good").hexdigest()


class Rerouted(httpx.BaseTransport):
    """Sends what goes to torchvision's host to the scripted server."""

    def __init__(self, server: Script) -> None:
        self._server = server
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.host == "download.pytorch.org"
        return self._inner.handle_request(httpx.Request("GET", f"{self._server.url}{request.url.path}"))


def test_published_weights_are_fetched_checked_and_led_nowhere_else(server: Script, tmp_path: Path) -> None:
    target, via = tmp_path / "x.pth", Rerouted(server)
    server.on(
        "GET /x.pth",
        Answer(b"good"),
        Answer(b"evil"),
        Answer(b"", 302, headers={"Location": "https://elsewhere.example/x.pth"}),
        Answer(b"goo", cut=True),
        Answer(b"good"),
    )
    fetch_published(PUBLISHED, GOOD, target, transport=via)
    assert target.read_bytes() == b"good"
    target.unlink()
    for error, words in (
        (DamagedDownload, "began from"),
        (ServerUnreachable, "answered 302"),
        (ServerUnreachable, "cannot be fetched"),
    ):
        with pytest.raises(error, match=words):
            fetch_published(PUBLISHED, GOOD, target, transport=via)
    with pytest.raises(DamagedDownload, match="more than 3 bytes"):
        fetch_published(PUBLISHED, GOOD, target, transport=via, max_bytes=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://download.pytorch.org/x.pth",
        "https://evil.example/x.pth",
        "https://download.pytorch.org@evil.example/x.pth",
        "https://download.pytorch.org:8443/x.pth",
        "https://download.pytorch.org.evil.example/x.pth",
        "file:///etc/passwd",
    ],
)
def test_no_other_address_is_asked(server: Script, tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="fetch them yourself and name the file with --base"):
        fetch_published({**PUBLISHED, "url": url}, GOOD, tmp_path / "x", transport=Rerouted(server))
    assert server.requests == []


def test_what_torchvision_has_fetched_for_this_user_is_used(
    server: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    there = tmp_path / "hub" / "checkpoints" / "x.pth"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"good")
    base = Base({"weights": PUBLISHED, "format": "torch", "sha256": GOOD})
    with Thaw(server.url, "key") as client:
        assert Bases(client, tmp_path / "cache").get(base).path == there
        local = Base({"weights": None, "format": "torch", "sha256": "0" * 64})
        with pytest.raises(UsageError, match="name it with --base"):
            Bases(client, tmp_path / "cache").get(local)
