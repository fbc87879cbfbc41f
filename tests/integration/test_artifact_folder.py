"""The store in a folder: one user's alone, on the disk before it shows, swept of what killed writers left."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from shared.artifacts import open_store


def test_the_folder_is_for_one_user_alone(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/store").put_bytes("a/b", b"x")

    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "store").rglob("*")}
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert modes == {".incoming": 0o700, "a": 0o700, "b": 0o600}


def test_the_folder_flushes_before_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"file://{tmp_path}/store")
    seen: list[tuple[str, bool]] = []
    flush = os.fsync

    def recorded(descriptor: int) -> None:
        seen.append((os.readlink(f"/proc/self/fd/{descriptor}"), (tmp_path / "store/a/b").exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    store.put_bytes("a/b", b"x")

    assert seen[0][0].endswith(".part")
    assert seen[0][1] is False, "the object shows before its bytes are on disk"
    assert (f"{tmp_path}/store", False) in seen
    assert seen[-1] == (f"{tmp_path}/store/a", True)


def test_the_folder_sweeps_what_killed_writers_left(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    open_store(url)
    for name, age_s in (("old", 25 * 3600), ("young", 60)):
        path = tmp_path / "store" / ".incoming" / name
        path.write_bytes(b"")
        os.utime(path, (time.time() - age_s, time.time() - age_s))

    open_store(url)
    assert os.listdir(tmp_path / "store" / ".incoming") == ["young"]


def test_a_folder_has_no_signed_address(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")
    store.put_bytes("k", b"x")

    assert store.signed_url("k", 60) is None
