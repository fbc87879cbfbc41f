"""What a node keeps of inputs: fetched once, used by several runs at a time, the least used gone first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from given_inputs import go_on

from shared.artifacts import ArtifactCorrupt
from worker.cache import Cache


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
