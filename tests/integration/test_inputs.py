"""What a run reads: fetched once, checked, unpacked safely; damaged checkpoints are passed over."""

from __future__ import annotations

import hashlib
import io
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import HTTPErrorProcessor, HTTPHandler, OpenerDirector, urlopen

import pytest

from shared.artifacts import ArtifactCorrupt, ArtifactStore, open_store
from shared.db.work import BaseWeights, InputFile, ResumePoint, Work
from shared.domain.archive import Caps
from shared.domain.errors import Invalid, TooLarge, Unavailable
from shared.domain.events import CheckpointManifest, ManifestEntry, TrainerSpec
from shared.domain.freeze import FreezePlan
from shared.domain.resolved import PublishedWeights, ResolvedJob
from worker.cache import Cache
from worker.inputs import Inputs
from worker.interruption import LeaseLost
from worker.patience import HostAway, patiently
from worker.published import BadWeights, OnlyToHttps, fetch_published, open_https
from worker.unpack import unpack

CAPS = Caps(files=1000, unpacked_bytes=10_000_000, ratio=200.0)


def go_on() -> None:
    """Nothing asks to stop."""


@pytest.fixture
def store(store_url: str) -> ArtifactStore:
    return open_store(store_url)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", 10**9, go_on) as cache:
        yield cache


def zipped(members: dict[str, bytes], *, link: str | None = None) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link is not None:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return packed.getvalue()


# -- the cache


def test_two_runs_that_want_the_same_fetch_it_once(tmp_path: Path) -> None:
    calls, both_ask = [], threading.Barrier(2)

    def fill(target: Path) -> None:
        calls.append(target)
        target.write_bytes(b"content")

    def ask() -> bytes:
        both_ask.wait()
        with Cache(tmp_path, 10**9, go_on) as cache:
            return cache.get("entry", fill).read_bytes()

    with ThreadPoolExecutor() as pool:
        assert [one.result() for one in [pool.submit(ask), pool.submit(ask)]] == [b"content"] * 2
    assert len(calls) == 1


def test_two_runs_use_one_entry_at_the_same_time(tmp_path: Path) -> None:
    def fill(target: Path) -> None:
        target.write_bytes(b"content")

    with Cache(tmp_path, 10**9, go_on) as first, Cache(tmp_path, 10**9, given_up_after(20)) as second:
        assert first.get("entry", fill) == second.get("entry", fill)


def given_up_after(times: int) -> Callable[[], None]:
    """A run that stops waiting when it has been asked so often."""
    left = iter(range(times))
    return lambda: None if next(left, None) is not None else pytest.fail("it waits for the other run's end")


def test_the_least_used_entries_go_first_and_never_those_in_use(tmp_path: Path) -> None:
    def ask(cache: Cache, name: str) -> Path:
        return cache.get(name, lambda target: target.write_bytes(b"x" * 40) and None)

    with Cache(tmp_path, 100, go_on) as first:
        in_use = ask(first, "in-use")
        with Cache(tmp_path, 100, go_on) as second:
            ask(second, "older"), ask(second, "newer")
        with Cache(tmp_path, 100, go_on) as third:
            ask(third, "newest")
            assert in_use.exists()
            left = {path.name for path in (tmp_path / "entries").iterdir()}
            assert left == {"in-use", "newest"}


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fill(target: Path) -> None:
        target.write_bytes(b"half")
        raise ArtifactCorrupt("rotten")

    with Cache(tmp_path, 100, go_on) as cache:
        with pytest.raises(ArtifactCorrupt):
            cache.get("entry", fill)
        assert not list((tmp_path / "incoming").iterdir())
        assert (
            cache.get("entry", lambda target: target.write_bytes(b"whole") and None).read_bytes() == b"whole"
        )


# -- archives


def test_an_archive_becomes_class_folders_also_from_inside_one_folder_more(tmp_path: Path) -> None:
    archive = tmp_path / "data.zip"
    archive.write_bytes(
        zipped({"set/cat/1.png": b"c", "set/dog/1.png": b"d", "set/.DS_Store": b"", "__MACOSX/x": b""})
    )
    unpack(archive, tmp_path / "out", CAPS, go_on)
    files = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert files == {"cat/1.png", "dog/1.png"}


@pytest.mark.parametrize(
    ("content", "error", "named"),
    [
        (zipped({"a/1.png": b"x", "../evil.png": b"x"}), Invalid, "../evil.png"),
        (zipped({"a/1.png": b"x", "/evil.png": b"x"}), Invalid, "/evil.png"),
        (zipped({"a/1.png": b"x"}, link="a/link.png"), Invalid, "a/link.png"),
        (b"no zip at all", Invalid, "zip"),
        (zipped({f"a/{n}.png": b"x" for n in range(1001)}), TooLarge, "1,001"),
    ],
)
def test_archives_that_are_refused(
    tmp_path: Path, content: bytes, error: type[Exception], named: str
) -> None:
    (tmp_path / "data.zip").write_bytes(content)
    with pytest.raises(error, match=named.replace(".", r"\.")):
        unpack(tmp_path / "data.zip", tmp_path / "out", CAPS, go_on)
    assert not list(tmp_path.rglob("evil.png"))


def test_a_member_that_lies_about_its_size_does_not_fill_the_disk(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(3_000_000))
    honest = packed.getvalue()
    lying = honest.replace((3_000_000).to_bytes(4, "little"), (300_000).to_bytes(4, "little"))
    (tmp_path / "data.zip").write_bytes(lying)
    with pytest.raises((TooLarge, Invalid)):
        unpack(tmp_path / "data.zip", tmp_path / "out", Caps(10, 10_000_000, 10_000.0), go_on)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.png")) <= 300_000


# -- published weights


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


# -- a whole job's inputs


def resolved(weights: dict[str, Any]) -> ResolvedJob:
    network = {"source": "torchvision", "name": "resnet18", "num_classes": 2, "head": ["fc"]}
    return ResolvedJob.model_validate(
        {
            "task": "classification",
            "base": network,
            "target": network,
            "replace_head": False,
            "weights": weights,
            "class_names": ["cat", "dog"],
            "freeze": {},
            "hyperparameters": {
                "n_epochs": 1,
                "batch_size": 2,
                "learning_rate": 0.1,
                "optimizer": "sgd",
                "momentum": 0.9,
                "weight_decay": 0.0,
                "lr_schedule": "constant",
                "warmup_steps": 0,
                "gradient_clip_norm": None,
                "label_smoothing": 0.0,
                "precision": "fp32",
                "early_stopping_patience": None,
            },
            "preprocessing": {
                "height": 8,
                "width": 8,
                "mean": [0.5] * 3,
                "std": [0.5] * 3,
                "augment": "none",
                "max_unreadable_fraction": 0.0,
            },
            "validation_fraction": None,
            "max_duration_s": 60,
            "seed": 1,
        }
    )


def stored(store: ArtifactStore, content: bytes, format: str = "image_folder", **details: Any) -> InputFile:
    sha256 = hashlib.sha256(content).hexdigest()
    store.put_bytes(f"files/{sha256}", content)
    return InputFile(f"file-{sha256[:6]}", "f", f"files/{sha256}", sha256, len(content), format, details)


def work(training: InputFile, **changes: Any) -> Work:
    fields: dict[str, Any] = {
        "job_id": "ftjob-1",
        "team_id": "team-1",
        "attempt_id": "attempt-1",
        "attempt_number": 1,
        "nodes": 1,
        "devices_per_node": 2,
        "accelerator": "any",
        "resolved": resolved({"kind": "none"}),
        "freeze_plan": FreezePlan(phases=(), aliases={}),
        "training": training,
        "validation": None,
        "weights": None,
        "base_model": None,
        "checkpoints": (),
    }
    return Work(**{**fields, **changes})


@dataclass
class Told:
    """What was said of the checkpoints: steps that were left out, and what the run goes on from."""

    left: list[int] = field(default_factory=list)
    whys: list[str] = field(default_factory=list)
    went_on_from: list[int | None] = field(default_factory=list)

    def left_out(self, point: ResumePoint, why: str) -> None:
        self.left.append(point.step)
        self.whys.append(why)

    def goes_on_from(self, point: ResumePoint | None) -> None:
        self.went_on_from.append(None if point is None else point.step)


def bring(
    work: Work, store: ArtifactStore, cache: Cache, run: Path, interrupted: Callable[[], None] = go_on
) -> tuple[TrainerSpec, Told]:
    told = Told()
    inputs = Inputs(work, store, cache, CAPS, None, interrupted, 10**9)
    return inputs.fetch(run, "cpu", told), told


def test_data_and_weights_are_on_disk_where_the_spec_says(
    store: ArtifactStore, cache: Cache, tmp_path: Path
) -> None:
    training = stored(store, zipped({"cat/1.png": b"c", "dog/1.png": b"d"}))
    table = stored(store, b"PAR1", "parquet", image_column="image", label_column="label")
    model = stored(store, b"tensors", "weights")
    job = work(
        training,
        validation=table,
        resolved=resolved({"kind": "job", "job_id": "ftjob-0"}),
        base_model=BaseWeights("ftjob-0", model.storage_key, model.sha256, model.bytes),
    )
    spec, told = bring(job, store, cache, tmp_path)
    assert (Path(spec.train.path) / "dog" / "1.png").read_bytes() == b"d"
    assert spec.validation is not None
    assert (spec.validation.image_column, spec.validation.label_column) == ("image", "label")
    assert Path(spec.validation.path).read_bytes() == b"PAR1"
    assert spec.weights is not None
    assert Path(spec.weights.path).read_bytes() == b"tensors"
    assert (Path(spec.weights.path).suffix, spec.weights.format) == (".safetensors", "safetensors")
    assert (spec.world_size, spec.device, spec.resume_from, spec.max_duration_s) == (2, "cpu", None, 60)
    assert (told.left, told.went_on_from) == ([], [None])

    for entry in store.list():
        store.delete(entry.key)
    again, _ = bring(job, store, cache, tmp_path)
    assert again == spec, "all of it came from the cache"


def test_other_bytes_than_were_uploaded_are_refused(
    store: ArtifactStore, cache: Cache, tmp_path: Path
) -> None:
    training = stored(store, zipped({"cat/1.png": b"c"}))
    store.put_bytes(training.storage_key, b"rotten")
    with pytest.raises(ArtifactCorrupt, match="6 bytes"):
        bring(work(training), store, cache, tmp_path)


def test_a_lost_lease_ends_the_fetching_and_leaves_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    training = stored(store, zipped({"cat/1.png": b"c"}))
    asked = 0

    def lost() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise LeaseLost("gone")

    with Cache(tmp_path / "cache", 10**9, lost) as cache, pytest.raises(LeaseLost):
        bring(work(training), store, cache, tmp_path, lost)
    assert not list((tmp_path / "cache" / "entries").iterdir())
    assert not list((tmp_path / "cache" / "incoming").iterdir())


def checkpoint(store: ArtifactStore, step: int, content: bytes = b"state") -> ResumePoint:
    prefix = f"checkpoints/step-{step}"
    entry = ManifestEntry(name="state.pt", bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    store.put_bytes(f"{prefix}/state.pt", content)
    manifest = CheckpointManifest(epoch=step, step=step, is_best=False, metrics={}, files=[entry])
    return ResumePoint(f"ftckpt-{step}", step, step, prefix, manifest)


def other_bytes(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    store.put_bytes(f"{point.storage_prefix}/state.pt", b"STATE")
    return point


def truncated(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    store.put_bytes(f"{point.storage_prefix}/state.pt", b"sta")
    return point


def longer(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    store.put_bytes(f"{point.storage_prefix}/state.pt", b"state and more")
    return point


def gone(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    store.delete(f"{point.storage_prefix}/state.pt")
    return point


def without_manifest(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    return replace(point, manifest=None)


def leading_astray(store: ArtifactStore, point: ResumePoint) -> ResumePoint:
    assert point.manifest is not None
    entry = point.manifest.files[0].model_copy(update={"name": "../../state.pt"})
    return replace(point, manifest=point.manifest.model_copy(update={"files": [entry]}))


@pytest.mark.parametrize(
    "damage",
    [other_bytes, truncated, longer, gone, without_manifest, leading_astray],
    ids=lambda f: f.__name__,
)
def test_a_damaged_checkpoint_is_passed_over_and_told(
    store: ArtifactStore,
    cache: Cache,
    tmp_path: Path,
    damage: Callable[[ArtifactStore, ResumePoint], ResumePoint],
) -> None:
    training = stored(store, zipped({"cat/1.png": b"c"}))
    newest, good, older = (checkpoint(store, step) for step in (9, 7, 6))
    points = (damage(store, newest), good, older)
    spec, told = bring(work(training, checkpoints=points), store, cache, tmp_path)
    assert spec.resume_from == str(tmp_path / "resume" / "step-000007")
    assert (Path(spec.resume_from) / "state.pt").read_bytes() == b"state"
    assert (
        CheckpointManifest.model_validate_json((Path(spec.resume_from) / "manifest.json").read_bytes())
        == good.manifest
    )
    assert (told.left, told.went_on_from) == ([9], [7])
    assert told.whys[0]
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["step-000007"]


def test_without_a_whole_checkpoint_the_run_starts_anew(
    store: ArtifactStore, cache: Cache, tmp_path: Path
) -> None:
    training, damaged = stored(store, zipped({"cat/1.png": b"c"})), checkpoint(store, 3)
    store.put_bytes(f"{damaged.storage_prefix}/state.pt", b"")
    spec, told = bring(work(training, checkpoints=(damaged,)), store, cache, tmp_path)
    assert (spec.resume_from, told.left, told.went_on_from) == (None, [3], [None])
