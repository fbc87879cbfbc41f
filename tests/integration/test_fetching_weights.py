"""Published weights on a node: fetched over https alone, checked, and asked for again where that may help."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import HTTPErrorProcessor, HTTPHandler, OpenerDirector, urlopen

import pytest
from given_inputs import go_on

from shared.domain.errors import Unavailable
from shared.domain.resolved import PublishedWeights
from worker.patience import HostAway, patiently
from worker.published import BadWeights, OnlyToHttps, fetch_published, open_https


@pytest.fixture
def site() -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """A server on this machine: what it answers by path, as (status, body or where to go)."""
    answers: dict[str, tuple[int, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body.decode())
            self.send_header("Content-Length", "0" if status == 302 else str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if status == 302 else body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()


def weights(content: bytes, url: str = "https://nowhere.invalid/x.pth", digits: int = 8) -> PublishedWeights:
    sha256 = hashlib.sha256(content).hexdigest()[:digits]
    return PublishedWeights(name="X.V1", url=url, file_name="x.pth", sha256=sha256)


def fetch(published: PublishedWeights, target: Path, **changes: Any) -> None:
    fetch_published(published, target, **{"weights_dir": None, "interrupted": go_on, **changes})


def test_weights_are_fetched_and_checked(
    site: tuple[str, dict[str, tuple[int, bytes]]], tmp_path: Path
) -> None:
    url, answers = site
    answers["/x.pth"] = (200, b"good")
    for digits in (8, 64):
        fetch(weights(b"good", f"{url}/x.pth", digits), tmp_path / f"{digits}", open_url=urlopen)
        assert (tmp_path / f"{digits}").read_bytes() == b"good"
    with pytest.raises(BadWeights, match="published was"):
        fetch(weights(b"other", f"{url}/x.pth"), tmp_path / "bad", open_url=urlopen)
    with pytest.raises(BadWeights, match="larger than 3 bytes"):
        fetch(weights(b"good", f"{url}/x.pth"), tmp_path / "large", open_url=urlopen, max_bytes=3)
    answers["/x.pth"] = (404, b"")
    with pytest.raises(Unavailable, match="weights_dir"):
        fetch(weights(b"good", f"{url}/x.pth"), tmp_path / "gone", open_url=urlopen)


@pytest.mark.parametrize(("status", "tries"), [(503, 2), (404, 1), (200, 1)])
def test_only_a_host_that_may_be_back_is_waited_for(
    site: tuple[str, dict[str, tuple[int, bytes]]], tmp_path: Path, status: int, tries: int
) -> None:
    url, answers = site
    answers["/x.pth"] = (status, b"other")
    told: list[int] = []

    def try_once() -> None:
        told.append(status)
        (tmp_path / "x").unlink(missing_ok=True)
        fetch(weights(b"good", f"{url}/x.pth"), tmp_path / "x", open_url=urlopen)

    def back_on_the_second_try() -> None:
        if told and status == 503:
            answers["/x.pth"] = (200, b"good")

    with nullcontext() if tries > 1 else pytest.raises(Unavailable):
        patiently(try_once, back_on_the_second_try)
    assert len(told) == tries


def test_an_answer_cut_short_is_no_wrong_hash(
    site: tuple[str, dict[str, tuple[int, bytes]]], tmp_path: Path
) -> None:
    url, answers = site
    answers["/x.pth"] = (200, b"good")

    def open_and_cut(address: str) -> Any:
        answer = urlopen(address)
        answer.length += 1  # as if the host had promised one byte more
        return answer

    with pytest.raises(HostAway):
        fetch(weights(b"good", f"{url}/x.pth"), tmp_path / "x", open_url=open_and_cut)
    with pytest.raises(HostAway):
        fetch(weights(b"good", "http://127.0.0.1:1/x.pth"), tmp_path / "y", open_url=urlopen)


def test_weights_dir_comes_first_and_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"good")
    fetch(weights(b"good"), tmp_path / "out", weights_dir=tmp_path)
    assert (tmp_path / "out").read_bytes() == b"good"
    with pytest.raises(BadWeights, match=r"x\.pth"):
        fetch(weights(b"other"), tmp_path / "bad", weights_dir=tmp_path)


def test_only_https_is_opened_and_followed(site: tuple[str, dict[str, tuple[int, bytes]]]) -> None:
    url, answers = site
    answers["/x.pth"] = (302, f"{url}/y.pth".encode())
    with pytest.raises(URLError, match="not an https address"):
        open_https(f"{url}/x.pth")
    with pytest.raises(URLError, match="not an https address"):
        open_https("file:///etc/passwd")
    opener = OpenerDirector()
    for handler in (HTTPHandler(), OnlyToHttps(), HTTPErrorProcessor()):
        opener.add_handler(handler)
    with pytest.raises(URLError, match=r"y\.pth is not an https address"):
        opener.open(f"{url}/x.pth")
