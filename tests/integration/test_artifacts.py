"""One contract over every adapter of the artifact store."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from shared.artifacts import (
    ArtifactExists,
    ArtifactNotFound,
    ArtifactStore,
    BadKey,
    StoreOptions,
    StoreUnavailable,
    open_store,
)
from shared.domain.errors import Invalid

MIB = 1024 * 1024
BUCKET = "artifacts"


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    _client(endpoint).create_bucket(Bucket=BUCKET)
    yield endpoint
    server.stop()


def _client(endpoint: str):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="secret",
    )


def _options(endpoint: str, **changes: object) -> StoreOptions:
    fields = {"endpoint": endpoint, "access_key_id": "id", "secret_access_key": SecretStr("secret")}
    return StoreOptions(**{**fields, **changes})


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, StoreOptions]:
    """A store of its own for each test: an address and how to reach it."""
    if request.param == "folder":
        return f"file://{tmp_path}/store", StoreOptions()
    endpoint = request.getfixturevalue("s3_endpoint")
    return f"s3://{BUCKET}/{tmp_path.name}", _options(endpoint)


@pytest.fixture
def store(address: tuple[str, StoreOptions]) -> ArtifactStore:
    return open_store(*address)


def _read(store: ArtifactStore, key: str, start: int | None = None, end: int | None = None) -> bytes:
    return b"".join(store.stream(key, start, end))


def _chunks(count: int, size: int = MIB) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number % 251]) * size


def test_what_goes_in_comes_out(store: ArtifactStore) -> None:
    stored = store.put_bytes("teams/t/files/f", b"hello")

    assert stored == (type(stored))("teams/t/files/f", 5, hashlib.sha256(b"hello").hexdigest())
    assert _read(store, "teams/t/files/f") == b"hello"
    assert store.head("teams/t/files/f") == 5
    assert store.exists("teams/t/files/f")


def test_a_later_write_replaces_the_earlier(store: ArtifactStore) -> None:
    store.put_bytes("k", b"a long first version")
    store.put_stream("k", iter([b"short"]))

    assert _read(store, "k") == b"short"


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b"a", b"", b"b"]])
def test_streams_may_be_empty_or_hold_empty_chunks(store: ArtifactStore, chunks: list[bytes]) -> None:
    stored = store.put_stream("k", iter(chunks))

    whole = b"".join(chunks)
    assert (stored.size, stored.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert _read(store, "k") == whole


def test_twenty_megabytes_go_through_a_stream(store: ArtifactStore) -> None:
    stored = store.put_stream("big", _chunks(20))

    whole = b"".join(_chunks(20))
    assert stored.size == store.head("big") == 20 * MIB
    assert stored.sha256 == hashlib.sha256(whole).hexdigest()
    assert _read(store, "big") == whole
    assert max(len(chunk) for chunk in store.stream("big")) < 16 * MIB


PEAK_PROGRAM = """
import sys
from pydantic import SecretStr
from shared.artifacts import StoreOptions, open_store

def peak_mib():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

def chunks(count):
    return (bytes([n % 251]) * 1048576 for n in range(count))

url, endpoint = sys.argv[1:]
s3 = dict(endpoint=endpoint, access_key_id="id", secret_access_key=SecretStr("secret")) if endpoint else {}
store = open_store(url, StoreOptions(**s3))
store.put_stream("warm", chunks(30))
for chunk in store.stream("warm"): pass
before = peak_mib()
store.put_stream("big", chunks(100))
for chunk in store.stream("big"): pass
print(peak_mib() - before)
"""


def test_memory_does_not_grow_with_the_object(address: tuple[str, StoreOptions]) -> None:
    url, options = address
    command = [sys.executable, "-c", PEAK_PROGRAM, url, options.endpoint or ""]
    growth = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    assert float(growth) < 25, "70 MiB more in the stream must not show in the process's memory"


class SourceFailed(Exception):
    pass


@pytest.mark.parametrize(
    "failure", [SourceFailed("gone"), FileNotFoundError("the source's own"), OSError("reset")]
)
@pytest.mark.parametrize("if_absent", [False, True])
def test_an_aborted_stream_stores_nothing(store: ArtifactStore, failure: Exception, if_absent: bool) -> None:
    def breaking() -> Iterator[bytes]:
        yield from _chunks(9)
        raise failure

    with pytest.raises(type(failure)) as raised:
        store.put_stream("a/k", breaking(), if_absent=if_absent)

    assert raised.value is failure
    assert not store.exists("a/k")
    assert store.list() == ()


def test_an_aborted_stream_leaves_the_older_object(store: ArtifactStore) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"new"
        raise SourceFailed

    store.put_bytes("k", b"old")
    with pytest.raises(SourceFailed):
        store.put_stream("k", breaking())

    assert _read(store, "k") == b"old"


def test_an_aborted_stream_leaves_no_bytes_behind(tmp_path: Path, s3_endpoint: str) -> None:
    def breaking() -> Iterator[bytes]:
        yield from _chunks(20)
        raise SourceFailed

    for url in (f"file://{tmp_path}/store", f"s3://{BUCKET}/aborted"):
        with pytest.raises(SourceFailed):
            open_store(url, _options(s3_endpoint)).put_stream("k", breaking())

    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    uploads = _client(s3_endpoint).list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    assert [upload["Key"] for upload in uploads if upload["Key"].startswith("aborted")] == []


def test_create_only_refuses_a_taken_key(store: ArtifactStore) -> None:
    store.put_bytes("k", b"first", if_absent=True)

    for write in (
        lambda: store.put_bytes("k", b"second", if_absent=True),
        lambda: store.put_stream("k", iter([b"third"]), if_absent=True),
    ):
        with pytest.raises(ArtifactExists, match="'k'"):
            write()

    assert _read(store, "k") == b"first"
    assert [entry.key for entry in store.list()] == ["k"]


def test_create_only_streams_create(store: ArtifactStore) -> None:
    store.put_stream("k", _chunks(9), if_absent=True)

    assert store.head("k") == 9 * MIB
    assert [entry.key for entry in store.list()] == ["k"]


def test_of_many_who_create_one_wins(store: ArtifactStore) -> None:
    barrier = threading.Barrier(8)

    def create(number: int) -> bytes | None:
        data = b"by %d" % number
        barrier.wait(timeout=30)
        try:
            store.put_bytes("contended/key", data, if_absent=True)
        except ArtifactExists:
            return None
        return data

    with ThreadPoolExecutor(8) as pool:
        written = [data for data in pool.map(create, range(8)) if data is not None]

    assert written == [_read(store, "contended/key")]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 4, b"0123"),
        (4, None, b"456789"),
        (None, 3, b"012"),
        (2, 3, b"2"),
        (8, 99, b"89"),
        (4, 4, b""),
        (10, None, b""),
        (99, 120, b""),
        (6, 2, b""),
    ],
)
def test_ranges_are_cut_to_what_is_there(
    store: ArtifactStore, start: int | None, end: int | None, expected: bytes
) -> None:
    store.put_bytes("k", b"0123456789")

    assert _read(store, "k", start, end) == expected


def test_a_negative_range_is_refused(store: ArtifactStore) -> None:
    store.put_bytes("k", b"0123456789")
    with pytest.raises(Invalid, match="count from 0"):
        store.stream("k", -3)


def test_what_is_not_there_is_said_at_once(store: ArtifactStore) -> None:
    for read in (
        lambda: store.stream("no/such"),
        lambda: store.stream("no/such", 1, 2),
        lambda: store.head("no/such"),
    ):
        with pytest.raises(ArtifactNotFound, match="no/such"):
            read()

    assert not store.exists("no/such")
    store.delete("no/such")


HOSTILE = [
    "", "/", "/absolute", "..", "../outside", "a/../../outside", "a/./b", "a//b", "a/", ".incoming/x",
    "a/.hidden", "a\x00b", "a\nb", "a\n", "a\x7fb", "a\\b", "a b", "a%2e%2e/b", "caf\u00e9", "a#1", "a?b",
    "~root", "-rf", "n" * 201, "n/" * 460 + "n",
]  # fmt: skip


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_keys_are_refused_by_every_method(store: ArtifactStore, key: str) -> None:
    for call in (
        lambda: store.put_bytes(key, b"x"),
        lambda: store.put_stream(key, iter([b"x"])),
        lambda: store.stream(key),
        lambda: store.head(key),
        lambda: store.exists(key),
        lambda: store.delete(key),
        lambda: store.delete_all(["good", key]),
        lambda: store.signed_url(key, 60) if key else store.head(key),
    ):
        with pytest.raises(BadKey, match="artifact key"):
            call()


def test_listing_and_deleting_keep_to_whole_names(store: ArtifactStore) -> None:
    for key in ("jobs/a/1", "jobs/a/deep/2", "jobs/ab/3", "jobs/b"):
        store.put_bytes(key, key.encode())

    assert [(entry.key, entry.size) for entry in store.list("jobs/a")] == [
        ("jobs/a/1", 8),
        ("jobs/a/deep/2", 13),
    ]
    store.delete("jobs/b")
    assert [entry.key for entry in store.list("jobs")] == ["jobs/a/1", "jobs/a/deep/2", "jobs/ab/3"]


def test_listing_does_not_stop_at_a_page(store: ArtifactStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put_bytes(f"many/{number:04d}", b""), range(1010)))

    assert [entry.key for entry in store.list("many")] == [f"many/{number:04d}" for number in range(1010)]
    store.delete_all([entry.key for entry in store.list("many")])
    assert store.list() == ()


def test_pages_go_on_behind_a_key_in_the_order_of_keys(store: ArtifactStore) -> None:
    names = ["b/2", "a/10", "a/1", "c", "b/1", "a.b/1"]
    for key in names:
        store.put_bytes(key, key.encode())
    store.check()

    pages, after = [], ""
    while page := store.page(after=after, limit=2):
        pages.append([(entry.key, entry.size) for entry in page])
        after = page[-1].key
    assert [len(page) for page in pages] == [2, 2, 2]
    assert [key for page in pages for key, _ in page] == sorted(names)
    assert store.page(after="b", limit=1)[0].key == "b/1"
    assert store.page(after="d", limit=5) == ()


def test_several_objects_are_removed_at_once_and_those_that_are_gone_do_not_matter(
    store: ArtifactStore,
) -> None:
    for key in ("a/1", "a/2", "b"):
        store.put_bytes(key, b"x")
    store.delete_all(["a/1", "nothing/here", "b"])
    store.delete_all([])
    assert [entry.key for entry in store.list()] == ["a/2"]
    with pytest.raises(BadKey):
        store.delete_all(["a/2", "../secret"])
    assert store.exists("a/2")


def test_the_check_leaves_nothing(store: ArtifactStore) -> None:
    store.check()

    assert store.list() == ()


def test_writers_and_deleters_do_not_trip_over_folders(store: ArtifactStore) -> None:
    def write_and_delete(number: int) -> None:
        for turn in range(15):
            key = f"shared/folder/{number}-{turn}"
            store.put_bytes(key, b"x")
            store.delete(key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_and_delete, range(4)))

    assert store.list() == ()


def test_s3_signs_for_the_endpoint_that_clients_reach(s3_endpoint: str) -> None:
    inside = open_store(f"s3://{BUCKET}/signed", _options(s3_endpoint))
    outside = open_store(
        f"s3://{BUCKET}/signed", _options("http://inside.invalid", public_endpoint=s3_endpoint)
    )
    inside.put_bytes("k", b"bytes")

    assert inside.signed_url("k", 60) is None
    address = outside.signed_url("k", 60)
    assert address is not None
    assert "X-Amz-Expires=60" in address
    with urlopen(address, timeout=30) as response:
        assert response.read() == b"bytes"


def test_an_s3_that_cannot_be_reached_fails_the_check_soon() -> None:
    store = open_store("s3://bucket/prefix", _options("http://127.0.0.1:9"))
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot write"):
        store.check()
    assert time.monotonic() - began < 10


def test_a_missing_bucket_is_no_missing_object(s3_endpoint: str) -> None:
    store = open_store("s3://no-such-bucket/prefix", _options(s3_endpoint))
    with pytest.raises(StoreUnavailable, match="bucket or folder is not there"):
        store.check()
