"""Requests that were made to trip the server: each is answered in a line, and costs no more than others."""

from __future__ import annotations

import errno
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from api_house import JOBS, ApiHouse, api_on, class_folders, refused
from api_server import served
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.datastructures import UploadFile
from waiting import eventually

from api.routes import files
from shared.db.models import File
from shared.domain.errors import Invalid
from shared.settings import Settings

TEXTS = st.text(max_size=30) | st.sampled_from(
    ["\0", "a\0b", "..", "../..", "%00", "NaN", "1e400", "-1", str(2**63), "9" * 200, "x" * 5000, "\r\nX: 1"]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**63, -(2**63), 10**300, 1e308])
_HALF_A_CHARACTER = st.just("\ud800")
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | _HALF_A_CHARACTER,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | _HALF_A_CHARACTER, inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"freeze": "' + "x" * 500_000 + '"}', "freeze"),
        ('{"training_file": "f", "model": "resnet18", "' + "x" * 500_000 + '": 1}', None),
        ('{"freeze": {"find_unused_parameters": ' + "[" * 900 + "]" * 900 + "}}", None),
        ('{"freeze": {"find_unused_parameters": ' + '{"a":' * 400 + "1" + "}" * 400 + "}}", None),
        ('{"freeze": [' + ",".join(['""'] * 100_000) + "]}", "freeze.rules[0].freeze[0]"),
    ],
)
def test_a_long_or_deep_value_is_told_in_short(api: ApiHouse, body: str, param: str | None) -> None:
    answer = api.client.post(JOBS, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422, answer.text
    assert len(answer.content) < 10_000
    assert param is None or answer.json()["error"]["param"] == param


@pytest.mark.parametrize("charset", ["undefined", "idna", "utf-16", "no-such"])
def test_a_forms_charset_breaks_nothing(api: ApiHouse, charset: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n'
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    answer = api.client.post("/v1/files", content=body, headers={"Content-Type": kind})

    assert answer.status_code == 422, answer.text


def test_uploads_take_turns_and_hold_up_nobody_else(api: ApiHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    may_end = threading.Event()

    def takes_long(*args: object, **options: object) -> None:
        begun.append(1)
        may_end.wait(60)
        raise Invalid("enough", param="file")

    monkeypatch.setattr(files, "store_upload", takes_long)
    with ThreadPoolExecutor(50) as threads:
        sent = [threads.submit(api.upload, b"x") for _ in range(50)]
        try:
            eventually(lambda: len(begun) == 4)
            assert api.client.get("/v1/files").status_code == 200
            assert len(begun) == 4
        finally:
            may_end.set()
    assert {answer.result().status_code for answer in sent} == {422}
    assert len(begun) == 50


def test_an_upload_that_finds_no_room_is_told_so(api: ApiHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    async def is_full(self: UploadFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadFile, "write", is_full)
    answer = api.upload(class_folders("cat", "dog"))

    error = refused(answer, 503, None, "no room", "TMPDIR")
    assert error["code"] == "disk_full"
    assert "Retry-After" in answer.headers
    assert api.count(File) == 0


def test_an_upload_that_is_cut_off_is_no_fault_of_the_servers(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with api_on(settings) as house, served(settings, log) as address:
        head = (
            "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
            f"Authorization: {house.client.headers['Authorization']}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        )
        with connected(address) as line:
            line.sendall(head.encode())
        eventually(lambda: '"path": "/v1/files"' in log.read_text())
        assert httpx.get(f"{address}/healthz").status_code == 200

        assert "unexpected error" not in log.read_text()
        assert "Traceback" not in log.read_text()
        assert house.count(File) == 0


def connected(address: str) -> socket.socket:
    place = urlsplit(address)
    assert place.hostname is not None
    return socket.create_connection((place.hostname, place.port), timeout=20)


def test_whatever_stands_where_the_document_has_a_value_is_no_fault_of_the_servers(api: ApiHouse) -> None:
    document = api.client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            attack(api, method, path, operation, document)


def attack(
    api: ApiHouse, method: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]
) -> None:
    """Ask a route with texts, numbers and JSON of any kind in every place that it has for something."""
    places = re.findall(r"{(\w+)}", path)
    asked = [found["name"] for found in operation.get("parameters", ()) if found["in"] == "query"]
    fields = sorted(fields_of_body(operation, document))

    @hypothesis_settings(
        max_examples=5,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        where = {place: quote(data.draw(TEXTS.filter(bool)), safe="") for place in places}
        query = {name: data.draw(TEXTS) for name in asked if data.draw(st.booleans())}
        body = data.draw(st.dictionaries(st.sampled_from(fields), VALUES)) if fields else None
        answer = api.client.request(
            method,
            path.format(**where),
            params=query,
            content=json.dumps(body).encode() if fields else None,
            headers={"Content-Type": "application/json"} if fields else None,
        )
        assert answer.status_code < 500, (method, where, query, body, answer.text)
        assert answer.status_code < 400 or answer.json().keys() == {"error"}

    ask()


def fields_of_body(operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    for part in (schema, *schema.get("anyOf", ())):
        name = part.get("$ref", "").rpartition("/")[2]
        yield from document["components"]["schemas"].get(name, {}).get("properties", ())
