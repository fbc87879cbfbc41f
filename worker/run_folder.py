"""The folder of one attempt on this node: made for it alone, removed at its end, swept if its owner died."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_LOCK_SUFFIX = ".lock"


@contextmanager
def run_folder(work_dir: Path, attempt_id: str, trainer_uid: int | None = None) -> Iterator[Path]:
    """A fresh folder, mode 0700, owned by the trainers' uid; gone when the block ends."""
    runs = work_dir / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    sweep(runs)
    lock = runs / f"{attempt_id}{_LOCK_SUFFIX}"
    with _owned(lock):
        folder = runs / attempt_id
        folder.mkdir(mode=0o700)
        if trainer_uid is not None:
            os.chown(folder, trainer_uid, trainer_uid)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
            lock.unlink()


def _owned(lock: Path) -> TextIO:
    """The lock file, open and held; where a sweep removed it before it was held, it is made again."""
    while True:
        held = lock.open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
        if lock.exists() and os.path.samestat(lock.stat(), os.fstat(held.fileno())):
            return held
        held.close()


def sweep(runs: Path) -> None:
    """Remove the folders whose supervisor was killed: nobody holds their lock any more."""
    for lock in runs.glob(f"*{_LOCK_SUFFIX}"):
        with lock.open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file that readers of any uid see whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o644)
        file.write(text)
    os.replace(aside, path)
