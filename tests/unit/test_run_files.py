"""Files of a run, read and written by a worker that its trainers would like to fool."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.domain.events import OUTCOME_FILE, PROGRESS_FILE
from worker.capped_log import CappedLog
from worker.outcome import lost, read_outcome
from worker.progress_tail import ProgressTail
from worker.run_files import NotAPlainFile, end_of, read_plain

SECRET = b"what only the worker may read\n"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secrets" / "secret"
    file.parent.mkdir()
    file.write_bytes(SECRET)
    return file


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def test_a_plain_file_is_read_in_folders_too(run: Path) -> None:
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "one").write_bytes(b"1234")
    assert read_plain(run, "checkpoints/one") == b"1234"
    assert end_of(run, "checkpoints/one", 3) == b"234"
    with pytest.raises(FileNotFoundError):
        read_plain(run, "checkpoints/two")
    assert end_of(run, "checkpoints/two", 3) == b""


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("file", lambda run, secret: (run / "file").symlink_to(secret)),
        ("folder/secret", lambda run, secret: (run / "folder").symlink_to(secret.parent)),
        ("second-name", lambda run, secret: os.link(secret, run / "second-name")),
        ("pipe", lambda run, _: os.mkfifo(run / "pipe")),
        ("folder", lambda run, _: (run / "folder").mkdir()),
        ("../secrets/secret", lambda run, _: None),
    ],
)
def test_what_leads_elsewhere_is_refused(
    run: Path, secret: Path, name: str, make: Callable[[Path, Path], None]
) -> None:
    make(run, secret)
    with pytest.raises(NotAPlainFile):
        read_plain(run, name)
    assert end_of(run, name, 100) == b""


def test_an_absolute_name_is_refused(run: Path, secret: Path) -> None:
    with pytest.raises(NotAPlainFile):
        read_plain(run, str(secret))


def test_no_report_tells_what_a_link_leads_to(run: Path, secret: Path) -> None:
    for name in (PROGRESS_FILE, "logs.txt"):
        (run / name).symlink_to(secret)
    os.mkfifo(run / OUTCOME_FILE)
    with pytest.raises(NotAPlainFile) as refused:
        ProgressTail(run).new_lines()
    assert "only the worker" not in str(refused.value)
    told = lost("it ended", run=run).error
    assert told is not None
    assert told.traceback is None
    assert read_outcome(run) is None


def test_the_log_is_never_written_through_a_link(run: Path, secret: Path) -> None:
    (run / ".logs.txt.partial").symlink_to(secret)
    with CappedLog(run / "logs.txt", cap=1_000) as log:
        log.append(b"a line\n" * 50)
        (run / "logs.txt").unlink()
        (run / "logs.txt").symlink_to(secret)
        log.append(b"another line\n" * 100)
        log.append(b"the last line\n")
    assert secret.read_bytes() == SECRET
    written = (run / "logs.txt").read_bytes()
    assert b"what only the worker" not in written
    assert b"earlier lines were dropped" in written
    assert written.endswith(b"another line\nthe last line\n")


def test_a_log_that_is_a_link_already_is_refused(run: Path, secret: Path) -> None:
    (run / "logs.txt").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        CappedLog(run / "logs.txt", cap=1_000)
